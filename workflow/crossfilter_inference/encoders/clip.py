"""CLIP checkpoints, loaded with transformers: those of OpenAI, OpenCLIP, MetaCLIP and others of the same networks.

Checkpoints of model type `metaclip_2` (MetaCLIP 2) understand many languages. The text tower embeds texts into the same
space.

References
----------
A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
M. Cherti et al., "Reproducible Scaling Laws for Contrastive Language-Image Learning", CVPR 2023 (OpenCLIP).
H. Xu et al., "Demystifying CLIP Data", ICLR 2024 (MetaCLIP).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

CPU_COST = (8.0, 0.46, 1500)  # of ViT-B/16: the network of siglip's base model
MODEL_TYPES = ("clip", "metaclip_2")
_CLASSES = {"clip": "CLIP", "metaclip_2": "MetaClip2"}


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, and read its preprocessing."""
    folder = fetch_checkpoint(settings["model"], settings["revision"])
    files = weight_files(folder)
    config = _read_config(folder, settings)
    size = config.vision_config.image_size
    preprocessing = read_preprocessing(*read_processor(folder), ("CLIPImageProcessor",), image_size=size)
    check_tower(files, _images(config))
    return describe_checkpoint(settings["model"], folder, preprocessing, config.projection_dim)


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the image tower, without the weights of the text tower."""
    with resolved_checkpoint(provenance) as folder:
        tower = _images(_read_config(folder, provenance))
        network = ImageTower(load_tower(weight_files(folder), tower, network_dtype(provenance)), tower.output)
    return TorchEncoder(network, provenance, device, n_threads)


def load_text(provenance: Mapping[str, Any]) -> TextTower:
    """Load the text tower, without the weights of the image tower."""
    with resolved_checkpoint(provenance) as folder:
        config = _read_config(folder, provenance)
        name = f"{_CLASSES[config.model_type]}TextModelWithProjection"
        tower = Tower(name, config.text_config, ("text_model.", "text_projection."), "text_embeds")
        return TextTower(weight_files(folder), tower, lower_case=False)


def _images(config: Any) -> Tower:
    name = f"{_CLASSES[config.model_type]}VisionModelWithProjection"
    return Tower(name, config.vision_config, ("vision_model.", "visual_projection."), "image_embeds")


def _read_config(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Read `config.json`. Both towers project to the dimension of the whole model, whatever they say themselves."""
    config = read_network_config(folder, read_config(folder, settings, MODEL_TYPES))
    check_value(folder, config, "num_channels", 3)
    for tower in (config.vision_config, config.text_config):
        tower.projection_dim = config.projection_dim
    return config
