"""A torch network, run by OpenVINO: the same numbers in less time on many CPUs.

References
----------
OpenVINO, https://docs.openvino.ai: properties `INFERENCE_PRECISION_HINT`, `NUM_STREAMS`.
"""

import queue
import sys
import threading
import warnings
from contextlib import contextmanager

import torch

from ..errors import InputError

_TYPES = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoNetwork:
    """Takes and gives what the torch network does, float32 on the CPU; several threads may call it at once.

    Parameters
    ----------
    network : torch.nn.Module
    dtype : {"float32", "bfloat16"}
        What it computes in.
    n_streams : int
        Calls at once, each in one thread.
    """

    def __init__(self, network: torch.nn.Module, dtype: str, n_streams: int):
        # Converting a model would otherwise be reported to its makers; without this package, nothing is.
        sys.modules.setdefault("openvino_telemetry", None)
        import openvino

        self._network, self._dtype, self._n_streams = network, dtype, n_streams
        self._core = openvino.Core()
        self._options = {
            "INFERENCE_PRECISION_HINT": _TYPES[dtype],
            "NUM_STREAMS": str(n_streams),
            "INFERENCE_NUM_THREADS": str(n_streams),
            "ENABLE_CPU_PINNING": False,  # other jobs, and the decoding, want the cores as well
        }
        self._lock = threading.Lock()
        self._requests: dict[torch.Size, queue.SimpleQueue] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network on images of shape (n_images, 3, size, size), float32."""
        with self._lock:
            if images.shape not in self._requests:
                self._requests[images.shape] = self._compile(images)
        with _taken(self._requests[images.shape]) as request:
            request.infer({0: images.numpy()}, share_inputs=True)
            return torch.from_numpy(request.get_output_tensor(0).data.copy())

    def _compile(self, images: torch.Tensor) -> queue.SimpleQueue:
        """Compile the network for one shape of batch: as in torch, a fixed shape gives fixed numbers."""
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about shapes that are fixed here
            traced = torch.jit.trace(self._network, images, check_trace=False)  # the check would double the time
            model = openvino.convert_model(traced, example_input=images, input=[list(images.shape)])
        compiled = self._core.compile_model(model, "CPU", self._options)
        got = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if got != _TYPES[self._dtype]:
            raise InputError(f"dtype: this CPU computes in {got}, not in {self._dtype}; set dtype to float32")
        requests = queue.SimpleQueue()
        for _ in range(self._n_streams):
            requests.put(compiled.create_infer_request())
        return requests


@contextmanager
def _taken(requests: queue.SimpleQueue):
    request = requests.get()
    try:
        yield request
    finally:
        requests.put(request)
