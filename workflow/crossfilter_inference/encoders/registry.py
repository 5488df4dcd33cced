"""Resolve and load encoders by the name of their backend.

A backend is a module of this folder, found by its file name, or a user's Python file (`backend: path/to/file.py`). It
defines two functions:

    resolve(settings) -> dict       describe the encoder, with everything that determines its numbers (RESOLVED_KEYS at
                                    least); only this function may use the network
    load(provenance, device, n_threads) -> Encoder
                                    load the encoder, offline, from the result of resolve

It may define more. The planning of a run reads these two names from the source file, without importing it:

    load_text(provenance) -> TextEncoder
                                    load the encoder of texts
    CPU_COST = (4.5, 0.035, 1000)   forecast for a CPU: seconds to start a job, core seconds per photo, MB of memory

`docs/encoders.md` has an example.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..errors import InputError
from ..util.files import file_sha256
from . import devices
from .hub import changed, versions
from .identity import EMBED_VERSION, RESOLVED_KEYS, backends, may_understand_texts
from .protocol import Encoder, TextEncoder


def resolve_encoder(
    name: str, settings: Mapping[str, Any], device: str = "auto", before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Resolve a configured encoder: model, digests, preprocessing, number format, versions.

    Parameters
    ----------
    name : str
        The embedding type.
    settings : dict
        Its entry under `encoders:`.
    device : {"auto", "cpu", "cuda", "mps"}
    before : dict, optional
        The previous result: `dtype: auto` keeps its value, even on another computer.

    Returns
    -------
    dict
        The contents of `encoder.json`.

    Raises
    ------
    InputError
        If the encoder cannot be found.
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
            f"encoders.{name}: {settings['backend']}: resolve() returns no {' and no '.join(missing)}; "
            f"it must return a dictionary with {', '.join(RESOLVED_KEYS)}"
        )
    if settings["runtime"] == "openvino":
        resolved["versions"] = {**resolved["versions"], **versions("openvino")}
    if settings["backend"].endswith(".py"):
        resolved["backend_sha256"] = file_sha256(settings["backend"])
    return {**resolved, "embed_version": EMBED_VERSION}


def load_encoder(provenance: Mapping[str, Any], device: str = "auto", n_threads: int = 1) -> Encoder:
    """Load a resolved encoder. Uses no network.

    Raises
    ------
    InputError
        If it has changed since it was resolved, or the device cannot be used.
    """
    backend = provenance["backend"]
    if backend.endswith(".py") and file_sha256(backend) != provenance["backend_sha256"]:
        raise changed(provenance["name"], "backend", backend)
    return cast(Encoder, _backend(backend).load(provenance, device, n_threads))


def load_text_encoder(provenance: Mapping[str, Any]) -> TextEncoder:
    """Load the text side of a resolved encoder. Uses no network.

    Raises
    ------
    InputError
        If the encoder has no text tower.
    """
    backend = _backend(provenance["backend"])
    if not hasattr(backend, "load_text"):
        with_texts = [name for name in backends() if may_understand_texts({"backend": name})]
        raise InputError(
            f"{provenance['name']} does not understand text; choose an encoder of the backend "
            f"{' or '.join(with_texts)}, such as SIGLIP2: run snakemake with --config embedding_type=SIGLIP2, then "
            "search with --embedding_type SIGLIP2"
        )
    return cast(TextEncoder, backend.load_text(provenance))


def _backend(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(f".{name}", __package__)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None:
        raise InputError(f"backend: {name!r} is not a Python file; give the path of one")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may raise any error
        raise InputError(f"backend: {name!r} cannot be loaded ({type(error).__name__}: {error}); fix it") from None
    for function in ("resolve", "load"):
        if not callable(getattr(module, function, None)):
            raise InputError(f"backend: {name!r} defines no function {function}(); see the example in docs/encoders.md")
    return module
