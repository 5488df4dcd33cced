"""Tiny checkpoints with random weights, one for each model type, as transformers saves them."""

import json
from pathlib import Path

import torch

from crossfilter_inference.encoders.hub import import_transformers
from crossfilter_inference.encoders.image_processor import DEFAULTS

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "image_size": 64, "patch_size": 16}
SQUARE = {"height": 64, "width": 64}
# By model type: the class of the network in transformers, its configuration, and that of its image processor.
TOWERS = {
    "clip": ("CLIPModel", {"vision_config": VISION, "projection_dim": 24}, {"size": 64, "crop_size": 64}),
    "metaclip_2": ("MetaClip2Model", {"vision_config": VISION, "projection_dim": 24}, {"size": 64, "crop_size": 64}),
}
NETWORKS = {
    "dinov2": ("Dinov2Model", {**SIZES, "image_size": 128, "patch_size": 16}, {"size": 72, "crop_size": 64}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {**VISION, "patch_size": 32}, {"size": 72, "crop_size": 64}),
    "dinov3_vit": ("DINOv3ViTModel", VISION, {"size": SQUARE}),
    "dinov3_convnext": ("DINOv3ConvNextModel", {"hidden_sizes": [8, 8, 16, 32], "depths": [1] * 4}, {"size": SQUARE}),
    "vit": ("ViTModel", VISION, {"size": SQUARE}),
    "swin": ("SwinModel", {"image_size": 64, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}, {"size": SQUARE}),
    "resnet": ("ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, {"size": 56}),
}
PROCESSORS = {**dict.fromkeys(TOWERS, "CLIP"), **dict.fromkeys(NETWORKS, "ViT"), "resnet": "ConvNext"}
PROCESSORS |= {"dinov2": "Bit", "dinov2_with_registers": "Bit"}


def save_clip_tokenizer(folder):
    """Save a tokenizer of CLIP's kind that knows letters."""
    transformers = import_transformers()
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cast", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[("c", "a")]).save_pretrained(folder)
    return {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}


def save_metaclip_2_tokenizer(folder):
    """Save a tokenizer of MetaCLIP 2's kind that knows letters, capital ones too."""
    transformers = import_transformers()
    letters = [chr(number) for number in (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1))]
    words = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *letters, "\u2581cast"]
    vocabulary = [(word, -1.0 - number / 100) for number, word in enumerate(words)]
    transformers.XLMRobertaTokenizer(vocab=vocabulary).save_pretrained(folder)
    return {"vocab_size": len(words) + 1, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


SAVE_TOKENIZER = {"clip": save_clip_tokenizer, "metaclip_2": save_metaclip_2_tokenizer}


def save_tiny_checkpoint(folder: Path, model_type: str) -> None:
    """Save a checkpoint of a model type, with its image processor and its tokenizer."""
    transformers = import_transformers()
    kind, config, processor = {**TOWERS, **NETWORKS}[model_type]
    if model_type in TOWERS:
        texts = {**SIZES, **SAVE_TOKENIZER[model_type](folder), "max_position_embeddings": 77}
        config = {**config, "text_config": texts}
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.CONFIG_MAPPING[model_type](**config))
    for name, weight in model.named_parameters():
        if name.endswith("gamma"):  # of ConvNeXt: so small that the layers would not matter
            torch.nn.init.ones_(weight)
    model.save_pretrained(folder)
    processor_kind = getattr(transformers, f"{PROCESSORS[model_type]}ImageProcessorPil")
    processor_kind(**processor).save_pretrained(folder)
    if model_type.startswith("dinov3"):  # transformers has its image processor only with torchvision
        path = folder / "preprocessor_config.json"
        values = json.loads(path.read_text()) | {"image_processor_type": "DINOv3ViTImageProcessorFast"}
        values |= {key: DEFAULTS["DINOv3ViTImageProcessor"][key] for key in ("image_mean", "image_std")}
        path.write_text(json.dumps(values))
