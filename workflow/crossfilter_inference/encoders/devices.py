"""Devices and number formats: what `device`, `dtype` and `runtime` of the configuration mean on this machine.

torch is imported only if there may be a GPU.
"""

import fcntl
import importlib.util
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5  # for a free GPU
# Device files of the drivers on Linux: NVIDIA, of which a job may see any number, NVIDIA's boards with a built-in GPU,
# AMD, and either in the Windows Subsystem for Linux.
GPUS = ("nvidia[0-9]*", "nvgpu", "nvhost-gpu", "kfd", "dxg")
DEV = Path("/dev")


def may_have_gpu() -> bool:
    """Return whether this machine seems to have a GPU, without importing torch."""
    return sys.platform == "darwin" or _has_gpu_driver()


def _has_gpu_driver() -> bool:
    return any(any(DEV.glob(pattern)) for pattern in GPUS)


@contextmanager
def one_gpu(n_gpus: int) -> Iterator[None]:
    """Reserve one GPU for this process, hidden from other jobs; wait until one is free.

    Parameters
    ----------
    n_gpus : int
        GPUs of this machine, or of those that CUDA_VISIBLE_DEVICES names. With 0, nothing is reserved.
    """
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = (names or [*map(str, range(n_gpus))])[:n_gpus]
    if not names:
        yield
        return
    with ExitStack() as stack:
        # The lock ends with its process, like the process's memory on the GPU.
        locks = {name: stack.enter_context(open(_lock_of(name), "a")) for name in names}
        while (free := next((name for name in names if _try_lock(locks[name])), None)) is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        for name in names:
            if name != free:
                locks[name].close()
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = free
        try:
            yield
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES")
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _lock_of(gpu: str) -> Path:
    return Path(tempfile.gettempdir(), f"crossfilter-inference-{os.getuid()}-gpu-{gpu}.lock")


def _try_lock(lock: IO[str]) -> bool:
    """Take a lock if it is free; return whether it was."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def choose_device(device: str) -> "torch.device":
    """Choose the device that a network runs on.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        "auto" chooses a GPU if torch can use one.

    Raises
    ------
    InputError
        If torch cannot use the device on this machine.
    """
    import torch

    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, is_usable in usable.items() if is_usable)
        if device == "cpu" and _has_gpu_driver():
            logger.warning(
                "this machine has a GPU, but PyTorch %s cannot use it; embedding on the CPU", torch.__version__
            )
    elif not usable[device]:
        raise InputError(
            f"device: PyTorch {torch.__version__} cannot use {device!r} on this machine; set it to auto, or install "
            "the build of PyTorch for your GPU"
        )
    return torch.device(device)


def choose_dtype(dtype: str, device: str) -> str:
    """Choose the number format that a network computes in.

    Parameters
    ----------
    dtype : {"auto", "float32", "bfloat16"}
        "auto" is bfloat16 on a GPU that supports it, else float32.
    device : {"auto", "cpu", "cuda", "mps"}
    """
    if dtype != "auto":
        return dtype
    if device == "cpu" or not may_have_gpu():
        return "float32"
    import torch

    chosen = choose_device(device).type
    has_bfloat16 = chosen == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


def check_runtime(runtime: str, device: str) -> None:
    """Check that a runtime can be used.

    Raises
    ------
    InputError
        If its package is not installed, or it does not run on that device.
    """
    if runtime != "openvino":
        return
    if device not in ("auto", "cpu"):
        raise InputError(
            f"runtime: openvino runs on a CPU, but device is {device!r}; set device to auto, or runtime to torch"
        )
    if importlib.util.find_spec("openvino") is None:
        raise InputError(
            "runtime: the package openvino is not installed; pip install openvino, or set runtime to torch"
        )
