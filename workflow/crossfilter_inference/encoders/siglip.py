"""SigLIP and SigLIP2 checkpoints, by hub name and revision or by local folder, through transformers.

Checkpoints of model type `siglip` (also the fixed-size ones of SigLIP2) take square images; those of type
`siglip2` (NaFlex) take patches, and are given the largest square that fits their number of patches. Texts go
through the checkpoint's other tower into the same space.

References
----------
X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
M. Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic
Understanding, Localization, and Dense Features", arXiv:2502.14786, 2025.
"""

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..photos.image import Preprocessing
from .hub import changed, files_sha256, versions
from .identity import CHECKPOINT_PATTERNS
from .torch_encoder import TorchEncoder

_MODEL_TYPES = ("siglip", "siglip2")


def resolve(settings: dict) -> dict:
    """Find the checkpoint, fetch it if it is not here yet, and read its preprocessing."""
    transformers = _transformers()
    folder = _fetch(settings["model"], settings["revision"])
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
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
        **_digests(folder),
        "preprocessing": preprocessing.to_json(),
        "dimension": config.vision_config.hidden_size,
        "versions": versions("torch", "transformers", "pillow"),
    }


def load(provenance: dict, device: str, n_threads: int) -> TorchEncoder:
    """Load the image tower; the text tower's weights are not read."""
    with _checked_folder(provenance) as folder:
        transformers = _transformers()
        is_fixed_size = json.loads((folder / "config.json").read_text())["model_type"] == "siglip"
        tower = transformers.SiglipVisionModel if is_fixed_size else transformers.Siglip2VisionModel
        dtype = "float32" if provenance["runtime"] == "openvino" else provenance["dtype"]
        model = tower.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    return TorchEncoder(_ImageTower(model) if is_fixed_size else _PatchTower(model), provenance, device, n_threads)


def load_text(provenance: dict) -> "SiglipTextEncoder":
    """Load the text tower; the image tower's weights are not read."""
    with _checked_folder(provenance) as folder:
        return SiglipTextEncoder(folder)


class SiglipTextEncoder:
    """Embed texts in float32 on the CPU.

    Parameters
    ----------
    folder : Path
        Of a checkpoint.
    """

    def __init__(self, folder: Path):
        transformers = _transformers()
        config = transformers.AutoConfig.from_pretrained(folder)
        tower = transformers.SiglipTextModel if config.model_type == "siglip" else transformers.Siglip2TextModel
        self._model = tower.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError):
            raise InputError(
                f"model: {str(folder)!r} has no tokenizer, so that it understands no texts; put its files there"
            ) from None
        self._n_tokens = config.text_config.max_position_embeddings

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts; see `TextEncoder`. Words after the 64th token or so are not read."""
        # As in training: lower case, and padded to the full length, without which the numbers are others.
        tokens = self._tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._n_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            return nn.functional.normalize(self._model(**tokens).pooler_output).numpy()


def _digests(folder: Path) -> dict[str, str]:
    return {
        "weights_sha256": files_sha256(list(folder.glob("*.safetensors"))),
        "config_sha256": files_sha256([folder / "config.json", folder / "preprocessor_config.json"]),
    }


@contextmanager
def _checked_folder(provenance: dict) -> Iterator[Path]:
    """Give the folder of a checkpoint, and refuse what was made of it if it is not the one that was resolved.

    A commit on the hub names what it holds; a local folder has to be read, which runs beside the block.
    """
    if provenance["commit"] is not None:
        yield _cached(provenance["model"], provenance["commit"])
        return
    folder = Path(provenance["model"])
    with ThreadPoolExecutor(1, "digest") as pool:
        digests = pool.submit(_digests, folder)
        yield folder
        if digests.result().items() <= provenance.items():
            return
    raise changed(provenance["name"], "model", provenance["model"])


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
