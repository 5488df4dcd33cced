"""SigLIP and SigLIP2 checkpoints, by hub name and revision or by local folder, through transformers.

Checkpoints of model type `siglip` (also the fixed-size ones of SigLIP2) take square images; those of type
`siglip2` (NaFlex) take patches, and are given the largest square that fits their number of patches.

References
----------
X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
M. Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic
Understanding, Localization, and Dense Features", arXiv:2502.14786, 2025.
"""

import math
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..errors import InputError
from ..images import Preprocessing
from . import CHECKPOINT_PATTERNS, files_sha256, versions
from .torch_encoder import TorchEncoder

_MODEL_TYPES = ("siglip", "siglip2")


def resolve(settings: dict) -> dict:
    """Find the checkpoint, fetch it if it is not here yet, and read its preprocessing."""
    transformers = _transformers()
    folder = _fetch(settings["model"], settings["revision"])
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise InputError(f"model: {str(folder)!r} holds no checkpoint (config.json and *.safetensors)")
    config = transformers.AutoConfig.from_pretrained(folder)
    if config.model_type not in _MODEL_TYPES:
        raise InputError(
            f"model: {settings['model']!r} is of type {config.model_type!r}; "
            f"the backend siglip reads {' and '.join(_MODEL_TYPES)}"
        )
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    preprocessing = Preprocessing(
        size=_image_size(processor),
        resample=int(processor.resample),
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    return {
        "commit": None if os.path.isdir(settings["model"]) else folder.name,
        "weights_sha256": files_sha256(weights),
        "config_sha256": files_sha256([folder / "config.json", folder / "preprocessor_config.json"]),
        "preprocessing": preprocessing.to_json(),
        "dtype": "float32",
        "dimension": config.vision_config.hidden_size,
        "versions": versions("torch", "transformers", "pillow"),
    }


def load(provenance: dict) -> TorchEncoder:
    """Load the image tower; the text tower's weights are not read."""
    transformers = _transformers()
    folder = _cached(provenance["model"], provenance["commit"])
    config = transformers.AutoConfig.from_pretrained(folder)
    tower = transformers.SiglipVisionModel if config.model_type == "siglip" else transformers.Siglip2VisionModel
    model = tower.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    network = _ImageTower(model) if config.model_type == "siglip" else _PatchTower(model)
    return TorchEncoder(network, provenance)


def _transformers() -> ModuleType:
    import transformers

    transformers.logging.set_verbosity_error()  # else it reports the text tower's weights as not used
    transformers.logging.disable_progress_bar()
    return transformers


class _ImageTower(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=images).pooler_output


class _PatchTower(_ImageTower):
    """Cut the images into patches, the way NaFlex checkpoints take them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n_images, n_channels, height, width = images.shape
        side = self.model.config.patch_size
        rows, columns = height // side, width // side
        patches = images.reshape(n_images, n_channels, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(n_images, rows * columns, -1)
        shapes = torch.tensor([[rows, columns]] * n_images, device=images.device)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=images.device)
        return self.model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output


def _image_size(processor: object) -> int:
    if hasattr(processor, "max_num_patches"):
        return math.isqrt(processor.max_num_patches) * processor.patch_size
    if processor.size["height"] != processor.size["width"]:
        raise InputError(f"model: its images are not square ({processor.size})")
    return processor.size["height"]


def _fetch(model: str, revision: str) -> Path:
    if os.path.isdir(model):
        return Path(model)
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=CHECKPOINT_PATTERNS))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise InputError(
            f"model: neither a folder {model!r} nor a checkpoint of this name with revision {revision!r} on the hub"
        ) from None
    except OSError:  # among them the hub's own LocalEntryNotFoundError, and every failing connection
        raise InputError(
            f"model: {model!r} is not in the local cache and the hub cannot be reached; either run the same command "
            "once where there is a network, or set model to a folder that holds the checkpoint, or choose "
            "embedding_type: EFFICIENTNET_LITE0, which needs no network"
        ) from None


def _cached(model: str, commit: str | None) -> Path:
    if commit is None:
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=commit, allow_patterns=CHECKPOINT_PATTERNS, local_files_only=True))
