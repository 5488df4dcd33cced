"""DINOv2 and DINOv3 checkpoints, loaded with transformers. They see what photos look like; they understand no text.

The embedding is the class token after the last layer, or, of DINOv3's convolutional networks, the mean that replaces
it: both are `pooler` in transformers.

References
----------
M. Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
O. Siméoni et al., "DINOv3", arXiv:2508.10104, 2025.
"""

from collections.abc import Mapping
from typing import Any

from . import transformers
from .pooling import POOLINGS
from .transformers import load

__all__ = ["POOLINGS", "load", "resolve"]
CPU_COST = (8.0, 0.6, 1500)  # of ViT-B/14 at 224 pixels, which has 256 patches; that of siglip's base model has 196
MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext")


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Find the checkpoint, download it if necessary, read its preprocessing, and try the network."""
    return transformers.resolve({"pooling": "pooler", **settings}, MODEL_TYPES)
