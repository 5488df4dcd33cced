"""An encoder whose network is a torch module, run by torch or by OpenVINO."""

import numpy as np
import torch

from ..photos.image import Preprocessing
from .devices import choose_device

# Images per call where the configuration says auto. On a CPU a call of 4 is as fast per image as one of 32, and leaves
# less to do for the last one of a shard. On a GPU more than this gains nothing; less memory is found out (MemoryError).
_BATCH_SIZES = {"cpu": 4, "cuda": 256, "mps": 32}


class TorchEncoder:
    """Run a torch network on images.

    Parameters
    ----------
    network : torch.nn.Module
        Takes images of shape (n_images, 3, size, size), normalised; gives features of shape (n_images, n_dims).
    provenance : dict
        What `resolve_encoder` wrote; `dtype` and `runtime` say how the network runs.
    device : {"auto", "cpu", "cuda", "mps"}
    n_threads : int
        Cores to use on a CPU.
    """

    def __init__(self, network: torch.nn.Module, provenance: dict, device: str, n_threads: int):
        self.provenance = provenance
        self.preprocessing = Preprocessing.from_json(provenance["preprocessing"])
        with_openvino = provenance["runtime"] == "openvino"
        self.device = choose_device("cpu" if with_openvino else device)
        self.batch_size = _BATCH_SIZES[self.device.type]
        # Calls at once. On a CPU one for each core, in one thread: a call in several would wait for whatever core is
        # busy decoding, and could give other last bits. On a GPU the second one copies while the first one computes.
        self.n_streams = {"cpu": n_threads, "cuda": 2, "mps": 1}[self.device.type]
        torch.set_num_threads(1)
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # else float32 is rounded to TF32's 10 bits
        network = network.eval().requires_grad_(False)
        self._dtype = getattr(torch, provenance["dtype"])
        if with_openvino:
            from .openvino_network import OpenVinoNetwork

            self._network = OpenVinoNetwork(network, provenance["dtype"], self.n_streams)
            self._dtype = torch.float32  # of what goes in and comes out
        else:
            self._network = network.to(self.device, self._dtype)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )

    def encode_images(self, images: np.ndarray) -> np.ndarray:
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
    def _encode(self, pixels: torch.Tensor) -> np.ndarray:
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # so that the copy runs beside the computation
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        features = self._network(((pixels.float() / 255 - self._mean) / self._std).to(self._dtype))
        return torch.nn.functional.normalize(features.float()).cpu().numpy()
