"""Find, resolve and load the backend of an encoder.

A backend is a module with two functions:

    resolve(settings) -> dict       what the encoder is, with everything that changes its numbers (RESOLVED_KEYS at
                                    least); the only one that may use the network
    load(provenance, device, n_threads) -> Encoder
                                    the encoder itself, offline, from what resolve said

One that understands texts has a third, `load_text(provenance) -> TextEncoder`. `backend: path/to/file.py` in the
configuration brings a backend of one's own; `docs/encoders.md` shows one.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from ..errors import InputError
from ..util.files import file_sha256
from . import devices
from .hub import changed, versions
from .identity import EMBED_VERSION, RESOLVED_KEYS
from .protocol import Encoder, TextEncoder


def resolve_encoder(name: str, settings: dict, device: str = "auto", before: dict | None = None) -> dict:
    """Find out what an encoder is.

    Parameters
    ----------
    name : str
        The embedding type.
    settings : dict
        Its entry under `encoders:`.
    device : {"auto", "cpu", "cuda", "mps"}
    before : dict, optional
        What was found the last time: `dtype: auto` stays what it was, also when the computer is another one.

    Returns
    -------
    dict
        The contents of `encoder.json`.

    Raises
    ------
    InputError
        If the model cannot be had.
    """
    settings = {"dtype": "auto", "runtime": "torch", **settings}
    if settings["dtype"] == "auto" and before and before.items() >= {**settings, "dtype": before["dtype"]}.items():
        settings["dtype"] = before["dtype"]
    try:
        devices.check_runtime(settings["runtime"], device)
        runs_on = "cpu" if settings["runtime"] == "openvino" else device
        settings["dtype"] = devices.choose_dtype(settings["dtype"], runs_on)
        resolved = {"name": name, **settings, **_backend(settings["backend"]).resolve(settings)}
    except InputError as error:
        raise InputError(f"encoders.{name}: {error}") from None
    missing = [key for key in RESOLVED_KEYS if key not in resolved]
    if missing:
        raise InputError(
            f"encoders.{name}: {settings['backend']}: resolve() gives no {' and no '.join(missing)}; "
            f"it must return a dictionary with {', '.join(RESOLVED_KEYS)}"
        )
    if settings["runtime"] == "openvino":
        resolved["versions"] = {**resolved["versions"], **versions("openvino")}
    if settings["backend"].endswith(".py"):
        resolved["backend_sha256"] = file_sha256(settings["backend"])
    return {**resolved, "embed_version": EMBED_VERSION}


def load_encoder(provenance: dict, device: str = "auto", n_threads: int = 1) -> Encoder:
    """Load the encoder that `resolve_encoder` found. Uses no network.

    Raises
    ------
    InputError
        If it is no longer the one that was found, or the device cannot be had.
    """
    backend = provenance["backend"]
    if backend.endswith(".py") and file_sha256(backend) != provenance["backend_sha256"]:
        raise changed(provenance["name"], "backend", backend)
    return _backend(backend).load(provenance, device, n_threads)


def load_text_encoder(provenance: dict) -> TextEncoder:
    """Load the text side of the encoder that `resolve_encoder` found. Uses no network.

    Raises
    ------
    InputError
        If the encoder has none.
    """
    backend = _backend(provenance["backend"])
    if not hasattr(backend, "load_text"):
        raise InputError(
            f"{provenance['name']} does not understand texts; those of the backend siglip do, such as SIGLIP2: "
            "run snakemake with --config embedding_type=SIGLIP2, then search with --embedding_type SIGLIP2"
        )
    return backend.load_text(provenance)


def _backend(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(f".{name}", __package__)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        raise InputError(f"backend: {name!r} cannot be loaded ({type(error).__name__}: {error})") from None
    for function in ("resolve", "load"):
        if not callable(getattr(module, function, None)):
            raise InputError(f"backend: {name!r} has no function {function}(); docs/encoders.md shows one that has")
    return module
