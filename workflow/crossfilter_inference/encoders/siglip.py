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

from .checkpoint import read_config, read_processor, weight_files
from .hub import describe_checkpoint, fetch_checkpoint, resolved_checkpoint
from .image_processor import read_preprocessing
from .pretrained import (
    ImageTower,
    TextTower,
    Tower,
    check_tower,
    check_value,
    load_tower,
    network_dtype,
    read_network_config,
)
from .torch_encoder import TorchEncoder

CPU_COST = (8.0, 0.46, 1500)  # of the base model in float32, on 2 cores of 2023 (benchmarks/RESULTS.md)
MODEL_TYPES = ("siglip", "siglip2")
_CLASSES = {"siglip": "Siglip", "siglip2": "Siglip2"}


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, and read its preprocessing."""
    folder = fetch_checkpoint(settings["model"], settings["revision"])
    files = weight_files(folder)
    config = _read_config(folder, settings)
    network = config.vision_config
    takes = {"image_size": network.image_size} if config.model_type == "siglip" else {"patch_size": network.patch_size}
    kind = f"{_CLASSES[config.model_type]}ImageProcessor"
    preprocessing = read_preprocessing(*read_processor(folder), (kind,), **takes)
    check_tower(files, _images(config))
    return describe_checkpoint(settings["model"], folder, preprocessing, network.hidden_size)


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the image tower, without the weights of the text tower."""
    with resolved_checkpoint(provenance) as folder:
        config = _read_config(folder, provenance)
        tower = _images(config)
        model = load_tower(weight_files(folder), tower, network_dtype(provenance))
    network = (ImageTower if config.model_type == "siglip" else _PatchTower)(model, tower.output)
    return TorchEncoder(network, provenance, device, n_threads)


def load_text(provenance: Mapping[str, Any]) -> TextTower:
    """Load the text tower, without the weights of the image tower."""
    with resolved_checkpoint(provenance) as folder:
        config = _read_config(folder, provenance)
        name = f"{_CLASSES[config.model_type]}TextModel"
        tower = Tower(name, config.text_config, ("text_model.",), "pooler_output", dropped="text_model.")
        return TextTower(weight_files(folder), tower, lower_case=True)


class _PatchTower(ImageTower):
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


def _images(config: Any) -> Tower:
    name = f"{_CLASSES[config.model_type]}VisionModel"
    return Tower(name, config.vision_config, ("vision_model.",), "pooler_output", dropped="vision_model.")


def _read_config(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Read `config.json`, and check what of it the images depend on."""
    config = read_network_config(folder, read_config(folder, settings, MODEL_TYPES))
    check_value(folder, config, "num_channels", 3)
    check_value(folder, config, "vision_use_head", True)  # newer versions of transformers do not have it
    return config
