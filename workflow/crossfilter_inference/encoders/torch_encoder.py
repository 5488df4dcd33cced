"""An encoder that runs a torch network, with torch or with OpenVINO."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..photos.image import Preprocessing
from .devices import choose_device
from .protocol import Embeddings, Pixels

# Images per call if the configuration says auto. On a CPU, 4 are as fast per image as 32, and less of a shard's last
# batch is padding. On a GPU, larger batches are no faster; if the memory is too small, MemoryError halves them.
_BATCH_SIZES = {"cpu": 4, "cuda": 256, "mps": 32}


class TorchEncoder:
    """Run a torch network on images.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised images of shape (n_images, 3, size, size); returns features of shape (n_images, n_dims).
    provenance : dict
        The contents of `encoder.json`; `dtype` and `runtime` determine how the network runs.
    device : {"auto", "cpu", "cuda", "mps"}
    n_threads : int
        Cores to use on a CPU.
    """

    def __init__(self, network: torch.nn.Module, provenance: Mapping[str, Any], device: str, n_threads: int):
        self.provenance = dict(provenance)
        self.preprocessing = Preprocessing.from_json(provenance["preprocessing"])
        with_openvino = provenance["runtime"] == "openvino"
        self.device = choose_device("cpu" if with_openvino else device)
        self.batch_size = _BATCH_SIZES[self.device.type]
        # Calls at the same time. On a CPU, one per core, each in one thread: a call in several threads would wait for
        # cores that are busy decoding, and could change the last bits. On a GPU, one copies while the other computes.
        self.n_streams = {"cpu": n_threads, "cuda": 2, "mps": 1}[self.device.type]
        torch.set_num_threads(1)
        # Otherwise float32 is rounded to the 10 bits of TF32.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        network = network.eval().requires_grad_(False)
        self._dtype = getattr(torch, provenance["dtype"])
        self._network: Callable[[torch.Tensor], torch.Tensor]
        if with_openvino:
            from .openvino_network import OpenVinoNetwork

            self._network = OpenVinoNetwork(network, provenance["dtype"], self.n_streams)
            self._dtype = torch.float32  # of input and output
        else:
            self._network = network.to(self.device, self._dtype)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )

    def encode_images(self, images: Pixels) -> Embeddings:
        """Embed a batch of images; see `Encoder`."""
        try:
            return self._encode(torch.from_numpy(images))
        except RuntimeError as error:
            if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
                raise
            message = str(error).splitlines()[0]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(message)

    @torch.inference_mode()
    def _encode(self, pixels: torch.Tensor) -> Embeddings:
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # lets the copy overlap the computation
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        features = self._network(((pixels.float() / 255 - self._mean) / self._std).to(self._dtype))
        rows: Embeddings = torch.nn.functional.normalize(features.float()).cpu().numpy()
        return rows
