"""An encoder whose network is a torch module."""

import logging
from pathlib import Path

import numpy as np
import torch

from ..images import Preprocessing

logger = logging.getLogger(__name__)

GPUS = (Path("/dev/nvidia0"), Path("/dev/kfd"))  # what the drivers of NVIDIA and AMD make on Linux


class TorchEncoder:
    """Run a torch network on images.

    Parameters
    ----------
    network : torch.nn.Module
        Takes images of shape (n_images, 3, size, size), float32, normalised; gives features of shape
        (n_images, n_dims).
    provenance : dict
        What `resolve_encoder` wrote.
    """

    def __init__(self, network: torch.nn.Module, provenance: dict):
        self.provenance = provenance
        self.preprocessing = Preprocessing.from_json(provenance["preprocessing"])
        self.device = _device()
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch of images; see `Encoder`."""
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
            features = self._network((pixels.float() / 255 - self._mean) / self._std)
            return torch.nn.functional.normalize(features.float()).cpu().numpy()


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if any(gpu.exists() for gpu in GPUS):
        logger.warning("this machine has a GPU, but PyTorch %s cannot use it: embedding on the CPU", torch.__version__)
    return torch.device("cpu")
