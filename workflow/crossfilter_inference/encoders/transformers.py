"""Any vision model of transformers, with a choice of pooling.

The model type of the checkpoint determines the network, as in `AutoModel` of transformers. Resolving the encoder tries
the network on two images, so a model that does not fit is refused before a run embeds photos.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .checkpoint import (
    CONFIG,
    another_backend,
    check_names,
    describe_error,
    first_line,
    read_config,
    read_processor,
    refuse_shape,
    weight_files,
)
from .hub import describe_checkpoint, fetch_checkpoint, import_transformers, resolved_checkpoint
from .image_processor import DEFAULTS, read_preprocessing
from .pooling import POOLINGS, PooledNetwork
from .pretrained import network_dtype, read_copies, read_network_config
from .torch_encoder import TorchEncoder

CPU_COST = (8.0, 0.46, 1500)  # of ViT-B/16: the network of siglip's base model
MODEL_TYPES = ()  # any of a vision model
_UNNAMED = {"vit": "ViTImageProcessor"}  # Google's checkpoints of ViT name no image processor


def resolve(settings: Mapping[str, Any], model_types: tuple[str, ...] = MODEL_TYPES) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, read its preprocessing, and try the network.

    Parameters
    ----------
    settings : dict
    model_types : tuple of str
        Those that the backend can load; if empty, any of a vision model.
    """
    if "pooling" not in settings:
        raise InputError(f"pooling: missing; set it to {' or '.join(POOLINGS)} (docs/encoders.md)")
    folder = fetch_checkpoint(settings["model"], settings["revision"])
    files = weight_files(folder)
    values = read_config(folder, settings, model_types)
    unnamed = _UNNAMED.get(values["model_type"], "")
    preprocessing = read_preprocessing(*read_processor(folder), DEFAULTS, unnamed=unnamed)
    network = _load(files, values, settings, "float32")
    dimension = _try(network, settings["model"], preprocessing.size)
    described = describe_checkpoint(settings["model"], folder, preprocessing, dimension)
    return {**described, "pooling": settings["pooling"]}


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the network."""
    with resolved_checkpoint(provenance) as folder:
        values = read_config(folder, provenance)
        network = _load(weight_files(folder), values, provenance, network_dtype(provenance))
    return TorchEncoder(network, provenance, device, n_threads)


def _load(files: list[Path], values: Mapping[str, Any], settings: Mapping[str, Any], dtype: str) -> PooledNetwork:
    folder = files[0].parent
    config = read_network_config(folder, values)
    try:
        kind = import_transformers().MODEL_MAPPING.get(type(config), None)
        if getattr(kind, "main_input_name", None) == "pixel_values":
            options = {"dtype": getattr(torch, dtype), "output_loading_info": True, "ignore_mismatched_sizes": True}
            model, loaded = kind.from_pretrained(None, config=config, state_dict=read_copies(files), **options)
    except InputError:
        raise
    except Exception as error:  # of many kinds: impossible values, missing packages
        raise describe_error(folder / CONFIG, error) from None
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise InputError(
            f"model: {settings['model']!r} is of type {config.model_type!r}, which is no vision model; "
            f"{another_backend(config.model_type)}"
        )
    own = {name for name, _ in model.named_children()}
    base = f"{model.base_model_prefix}."  # before the names in a checkpoint with a head, which has other names
    unknown = {
        name
        for name in loaded["unexpected_keys"]
        if own & {name.partition(".")[0], name.removeprefix(base).partition(".")[0]}
    }
    unused = () if settings["pooling"] == "pooler" else ("pooler.",)
    check_names(folder, {name for name in loaded["missing_keys"] if not name.startswith(unused)}, unknown)
    for name, found, expected in loaded["mismatched_keys"]:
        raise refuse_shape(folder, name, found, expected)
    return PooledNetwork(model, settings["pooling"])


@torch.inference_mode()
def _try(network: PooledNetwork, model: str, size: int) -> int:
    """Embed two images, in both orders; return the number of dimensions."""
    images = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    network.eval()
    try:
        rows, turned = network(images), network(images.flip(0)).flip(0)
    except InputError:
        raise
    except Exception as error:  # networks refuse images in many ways
        raise InputError(
            f"model: {model!r} cannot embed images of {size} pixels ({first_line(error)}); choose another model, or "
            "correct the size in the file of its preprocessing"
        ) from None
    if not torch.isfinite(rows).all():
        raise InputError(f"model: {model!r} has weights that are not finite; choose another checkpoint")
    if rows.ndim != 2 or not torch.allclose(rows, turned, rtol=0, atol=1e-3 * float(rows.abs().max())):
        raise InputError(
            f"model: {model!r} does not give an image the same row each time, as a model for pretraining may; choose "
            "another model"
        )
    return int(rows.shape[1])
