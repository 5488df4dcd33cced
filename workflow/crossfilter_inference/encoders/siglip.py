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

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..photos.image import Preprocessing
from .hub import describe_checkpoint, fetch_checkpoint, import_transformers, read_config, resolved_checkpoint, versions
from .protocol import Embeddings
from .torch_encoder import TorchEncoder

CPU_COST = (8.0, 0.46, 1500)  # of the base model in float32, on 2 cores of 2023 (benchmarks/RESULTS.md)
_MODEL_TYPES = ("siglip", "siglip2")


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, and read its preprocessing."""
    folder = fetch_checkpoint(settings["model"], settings["revision"])
    config = read_config(folder, settings, _MODEL_TYPES)
    processor = import_transformers().AutoImageProcessor.from_pretrained(folder, backend="pil")
    preprocessing = Preprocessing(
        size=_image_size(processor),
        resample=int(processor.resample),
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    return {
        **describe_checkpoint(settings["model"], folder),
        "preprocessing": preprocessing.to_json(),
        "dimension": config.vision_config.hidden_size,
        "versions": versions("torch", "transformers", "pillow"),
    }


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the image tower, without the weights of the text tower."""
    with resolved_checkpoint(provenance) as folder:
        transformers = import_transformers()
        is_fixed_size = transformers.AutoConfig.from_pretrained(folder).model_type == "siglip"
        tower = transformers.SiglipVisionModel if is_fixed_size else transformers.Siglip2VisionModel
        dtype = "float32" if provenance["runtime"] == "openvino" else provenance["dtype"]
        model = tower.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    return TorchEncoder(_ImageTower(model) if is_fixed_size else _PatchTower(model), provenance, device, n_threads)


def load_text(provenance: Mapping[str, Any]) -> "SiglipTextEncoder":
    """Load the text tower, without the weights of the image tower."""
    with resolved_checkpoint(provenance) as folder:
        return SiglipTextEncoder(folder)


class SiglipTextEncoder:
    """Embed texts in float32 on the CPU.

    Parameters
    ----------
    folder : Path
        Folder of a checkpoint.
    """

    def __init__(self, folder: Path):
        transformers = import_transformers()
        config = transformers.AutoConfig.from_pretrained(folder)
        tower = transformers.SiglipTextModel if config.model_type == "siglip" else transformers.Siglip2TextModel
        self._model = tower.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError):
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


def _image_size(processor: Any) -> int:
    if hasattr(processor, "max_num_patches"):
        return math.isqrt(processor.max_num_patches) * int(processor.patch_size)
    if processor.size["height"] != processor.size["width"]:
        raise InputError(f"model: its images are not square ({processor.size}); choose a model with square images")
    return int(processor.size["height"])
