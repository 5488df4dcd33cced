"""Run a torch network with OpenVINO, which is faster on many CPUs.

References
----------
OpenVINO, https://docs.openvino.ai: properties `INFERENCE_PRECISION_HINT`, `NUM_STREAMS`.
"""

import queue
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InputError

_TYPES = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoNetwork:
    """A network that several threads may call at once. Its input and output are float32 tensors on the CPU.

    Parameters
    ----------
    network : torch.nn.Module
    dtype : {"float32", "bfloat16"}
        Number format of the computation.
    n_streams : int
        Calls at the same time, each in one thread.
    """

    def __init__(self, network: torch.nn.Module, dtype: str, n_streams: int):
        # OpenVINO reports each conversion of a model to its developers through this package, unless it is missing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        self._network, self._dtype, self._n_streams = network, dtype, n_streams
        self._core = openvino.Core()
        self._options = {
            "INFERENCE_PRECISION_HINT": _TYPES[dtype],
            "NUM_STREAMS": str(n_streams),
            "INFERENCE_NUM_THREADS": str(n_streams),
            "ENABLE_CPU_PINNING": False,  # other jobs and the decoding need the cores too
        }
        self._lock = threading.Lock()
        self._requests: dict[torch.Size, queue.SimpleQueue[Any]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network on images of shape (n_images, 3, size, size), float32."""
        with self._lock:
            if images.shape not in self._requests:
                self._requests[images.shape] = self._compile(images)
        with _borrowed(self._requests[images.shape]) as request:
            request.infer({0: images.numpy()}, share_inputs=True)
            return torch.from_numpy(request.get_output_tensor(0).data.copy())

    def _compile(self, images: torch.Tensor) -> queue.SimpleQueue[Any]:
        """Compile the network for one shape of batch: a fixed shape gives fixed numbers, as in torch."""
        import openvino

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns about shapes that are constant here
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                self._network,
                images,
                check_trace=False,  # the check would double the time
            )
            model = openvino.convert_model(traced, example_input=images, input=[list(images.shape)])
        compiled = self._core.compile_model(model, "CPU", self._options)
        got = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if got != _TYPES[self._dtype]:
            raise InputError(f"dtype: this CPU computes in {got} instead of {self._dtype}; set dtype to float32")
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._n_streams):
            requests.put(compiled.create_infer_request())
        return requests


@contextmanager
def _borrowed(requests: queue.SimpleQueue[Any]) -> Iterator[Any]:
    request = requests.get()
    try:
        yield request
    finally:
        requests.put(request)
