"""SigLIP and SigLIP 2 checkpoints, loaded with transformers.

Checkpoints of model type `siglip` (including those of SigLIP 2 with a fixed size) take square images. Checkpoints of
model type `siglip2` (NaFlex) take patches; they get the largest square that their number of patches allows. The text
tower embeds texts into the same space.

References
----------
X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
M. Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic
Understanding, Localization, and Dense Features", arXiv:2502.14786, 2025.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .checkpoint import (
    CONFIG,
    check_weights,
    describe_error,
    read_config,
    read_processor,
    read_weights,
    weight_files,
)
from .hub import describe_checkpoint, fetch_checkpoint, import_transformers, resolved_checkpoint, versions
from .image_processor import read_preprocessing
from .protocol import Embeddings
from .torch_encoder import TorchEncoder

CPU_COST = (8.0, 0.46, 1500)  # of the base model in float32, on 2 cores of 2023 (benchmarks/RESULTS.md)
_MODEL_TYPES = ("siglip", "siglip2")
_IMAGES, _TEXTS = "vision_model.", "text_model."  # prefixes of the weights of the two towers


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, and read its preprocessing."""
    folder = fetch_checkpoint(settings["model"], settings["revision"])
    files = weight_files(folder)
    config = _read_config(folder, settings)
    path, values = read_processor(folder)
    preprocessing = read_preprocessing(path, values, config.model_type, config.vision_config)
    check_weights(files, _IMAGES, _shapes(_tower(config.model_type, _IMAGES), config.vision_config, folder))
    return {
        **describe_checkpoint(settings["model"], folder),
        "preprocessing": preprocessing.to_json(),
        "dimension": config.vision_config.hidden_size,
        "versions": versions("torch", "transformers", "pillow"),
    }


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the image tower, without the weights of the text tower."""
    with resolved_checkpoint(provenance) as folder:
        config = _read_config(folder, provenance)
        dtype = "float32" if provenance["runtime"] == "openvino" else provenance["dtype"]
        model = _load_tower(folder, config, _IMAGES, config.vision_config, getattr(torch, dtype))
    is_fixed_size = config.model_type == "siglip"
    return TorchEncoder(_ImageTower(model) if is_fixed_size else _PatchTower(model), provenance, device, n_threads)


def load_text(provenance: Mapping[str, Any]) -> "SiglipTextEncoder":
    """Load the text tower, without the weights of the image tower."""
    with resolved_checkpoint(provenance) as folder:
        return SiglipTextEncoder(folder, provenance)


class SiglipTextEncoder:
    """Embed texts in float32 on the CPU.

    Parameters
    ----------
    folder : Path
        Folder of a checkpoint.
    provenance : dict
        The contents of `encoder.json`.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any]):
        config = _read_config(folder, provenance)
        files, tower = weight_files(folder), _tower(config.model_type, _TEXTS)
        check_weights(files, _TEXTS, _shapes(tower, config.text_config, folder))
        self._model = _load_tower(folder, config, _TEXTS, config.text_config, torch.float32).eval()
        try:
            self._tokenizer = import_transformers().AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception:  # its libraries raise errors of many kinds
            raise InputError(
                f"model: {str(folder)!r} has no tokenizer, so it cannot embed text; copy the tokenizer's files there"
            ) from None
        self._n_tokens = config.text_config.max_position_embeddings

    def encode_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts; see `TextEncoder`. Tokens beyond the model's limit (64) are ignored."""
        # As in training: lower case, and padded to the full length. Without padding, the embeddings differ.
        tokens = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._n_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            rows: Embeddings = nn.functional.normalize(self._model(**tokens).pooler_output).numpy()
        return rows


class _ImageTower(nn.Module):
    def __init__(self, model: Any):  # one of transformers' models
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model(pixel_values=images).pooler_output
        return features


class _PatchTower(_ImageTower):
    """Cut the images into patches, as NaFlex checkpoints expect them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n_images, n_channels, height, width = images.shape
        side: int = self.model.config.patch_size
        rows, columns = height // side, width // side
        patches = images.reshape(n_images, n_channels, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(n_images, rows * columns, -1)
        shapes = torch.tensor([[rows, columns]] * n_images, device=images.device)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=images.device)
        output = self.model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes)
        features: torch.Tensor = output.pooler_output
        return features


def _read_config(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Read `config.json` into an object of transformers."""
    values = read_config(folder, settings, _MODEL_TYPES)
    transformers = import_transformers()
    kind = transformers.SiglipConfig if values["model_type"] == "siglip" else transformers.Siglip2Config
    try:
        config = kind.from_dict(values)
    except Exception as error:  # transformers checks values in many ways
        raise describe_error(folder / CONFIG, error) from None
    for key, needed in (("num_channels", 3), ("vision_use_head", True)):
        if (value := getattr(config.vision_config, key, needed)) != needed:  # newer versions have no vision_use_head
            raise InputError(
                f"model: vision_config.{key} in {str(folder / CONFIG)!r} is {value!r}, but must be {needed!r}; choose "
                "another model"
            )
    return config


def _tower(model_type: str, prefix: str) -> Any:
    names = {
        ("siglip", _IMAGES): "SiglipVisionModel",
        ("siglip", _TEXTS): "SiglipTextModel",
        ("siglip2", _IMAGES): "Siglip2VisionModel",
        ("siglip2", _TEXTS): "Siglip2TextModel",
    }
    return getattr(import_transformers(), names[model_type, prefix])  # imports one network, not both


def _shapes(tower: Any, config: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight that a network with this configuration has."""
    try:
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in tower(config).state_dict().items()}
    except Exception as error:  # impossible values raise errors of many kinds
        raise describe_error(folder / CONFIG, error) from None


def _load_tower(folder: Path, config: Any, prefix: str, tower_config: Any, dtype: torch.dtype) -> Any:
    """Load a tower from the weights of the folder.

    transformers gets no folder, so that it cannot load other files: an adapter, weights in another format, or code. The
    weights are copied, because those that are mapped into memory would change with their file.
    """
    weights = {name: weight.clone() for name, weight in read_weights(weight_files(folder), prefix).items()}
    return _tower(config.model_type, prefix).from_pretrained(
        None, config=tower_config, state_dict=weights, dtype=dtype, attn_implementation="sdpa"
    )
