"""Resolve and load encoders by the name of their backend.

A backend is a module of this folder, found by its file name, or a user's Python file (`backend: path/to/file.py`). It
defines two functions:

    resolve(settings) -> dict       describe the encoder, with everything that determines its numbers (RESOLVED_KEYS at
                                    least); only this function may use the network
    load(provenance, device, n_threads) -> Encoder
                                    load the encoder, offline, from the result of resolve

It may define more. The planning of a run reads these names from the source file, without importing it:

    load_text(provenance) -> TextEncoder
                                    load the encoder of texts
    MODEL_TYPES = ("clip",)         loads checkpoints of these model types of transformers, so it needs a `model`
    POOLINGS = ("cls", "mean")      allows the setting `pooling`
    CPU_COST = (4.5, 0.035, 1000)   forecast for a CPU: seconds to start a job, core seconds per photo, MB of memory
    WORDS_COST = 60.0               forecast: seconds to embed the words for a map

`docs/encoders.md` has an example.
"""

import hashlib
import importlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..errors import InputError
from ..util.garbage import without_garbage_collection
from ..util.text import once_with
from . import devices
from .hub import changed, versions
from .identity import EMBED_VERSION, RESOLVED_KEYS, may_understand_texts
from .identity import backends as built_in
from .protocol import Encoder, TextEncoder


@without_garbage_collection()
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
        backend, sha256 = _backend(settings["backend"])
        if "pooling" in settings and not hasattr(backend, "POOLINGS"):
            raise InputError(f"pooling: the backend {settings['backend']} has no choice of pooling; remove this key")
        resolved = {"name": name, **settings, **backend.resolve(settings)}
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
    if sha256:
        resolved["backend_sha256"] = sha256
    return {**resolved, "embed_version": EMBED_VERSION}


@without_garbage_collection()
def load_encoder(
    provenance: Mapping[str, Any], device: str = "auto", n_threads: int = 1, backends: Iterable[str] = ()
) -> Encoder:
    """Load a resolved encoder. Uses no network.

    Parameters
    ----------
    provenance : dict
        The contents of `encoder.json`. They may come from a stranger, so they cannot choose code to run.
    device : {"auto", "cpu", "cuda", "mps"}
    n_threads : int
    backends : iterable of str
        The Python files that the configuration names as backends. No other file is run.

    Raises
    ------
    InputError
        If it has changed since it was resolved, the device cannot be used, or its backend is a Python file that the
        configuration does not name.
    """
    return cast(Encoder, _named_backend(provenance, backends).load(provenance, device, n_threads))


@without_garbage_collection()
def load_text_encoder(provenance: Mapping[str, Any], *, backends: Iterable[str] = ()) -> TextEncoder:
    """Load the text side of a resolved encoder. Uses no network.

    Parameters
    ----------
    provenance : dict
    backends : iterable of str
        See `load_encoder`.

    Raises
    ------
    InputError
        If the encoder has no text tower, or as `load_encoder`.
    """
    backend = _named_backend(provenance, backends)
    if not hasattr(backend, "load_text"):
        with_texts = [name for name in built_in() if may_understand_texts({"backend": name})]
        raise InputError(
            f"{provenance['name']} does not understand text; choose an encoder of the backend "
            f"{' or '.join(with_texts)}, such as SIGLIP2: {once_with('embedding_type=SIGLIP2')}, then "
            "search with --embedding_type SIGLIP2"
        )
    return cast(TextEncoder, backend.load_text(provenance))


def check_named(name: str, backend: str, backends: Iterable[str]) -> None:
    """Refuse a Python file as backend, unless the configuration names it.

    Parameters
    ----------
    name : str
        Embedding type.
    backend : str
    backends : iterable of str
        The Python files that the configuration names.

    Raises
    ------
    InputError
    """
    if backend in built_in() or os.path.realpath(backend) in map(os.path.realpath, backends):
        return
    raise InputError(
        f"encoders.{name}.backend: the state folder names {backend!r}, but the configuration does not, so it is "
        "not run; if you trust it, name it under encoders: in a file, and give that with --configfile"
    )


def _named_backend(provenance: Mapping[str, Any], backends: Iterable[str]) -> ModuleType:
    """Return the backend of a resolved encoder, if the configuration names it and it has not changed."""
    name, backend = provenance["name"], provenance["backend"]
    check_named(name, backend, backends)
    if not backend.endswith(".py"):
        return _backend(backend)[0]
    code = _read_code(backend)
    if hashlib.sha256(code).hexdigest() != provenance["backend_sha256"]:
        raise changed(name, "backend", backend)
    return _run_code(backend, code)


def _backend(name: str) -> tuple[ModuleType, str]:
    """Return a backend, and the digest of its code if it is a Python file."""
    if not name.endswith(".py"):
        return importlib.import_module(f".{name}", __package__), ""
    code = _read_code(name)
    return _run_code(name, code), hashlib.sha256(code).hexdigest()


def _read_code(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InputError(
            f"backend: {name!r} cannot be read ({error.strerror}); give the path of a Python file"
        ) from None


def _run_code(name: str, code: bytes) -> ModuleType:
    """Run the code of a backend. An import would run what __pycache__ holds, which may be other code."""
    module = ModuleType(Path(name).stem)
    module.__file__ = name
    try:
        exec(compile(code, name, "exec"), module.__dict__)
    except Exception as error:  # a user's file may raise any error
        raise InputError(f"backend: {name!r} cannot be loaded ({type(error).__name__}: {error}); fix it") from None
    for function in ("resolve", "load"):
        if not callable(getattr(module, function, None)):
            raise InputError(f"backend: {name!r} defines no function {function}(); see the example in docs/encoders.md")
    return module
