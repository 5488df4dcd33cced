"""Encoders: what turns images into embeddings.

A backend is a module with two functions:

    resolve(settings) -> dict       what the encoder is, with everything that changes its numbers (RESOLVED_KEYS at
                                    least); the only one that may use the network
    load(provenance, device, n_threads) -> Encoder
                                    the encoder itself, offline, from what resolve said

One that understands texts has a third, `load_text(provenance) -> TextEncoder`. `backend: path/to/file.py` in the
configuration brings a backend of one's own; `docs/encoders.md` shows one.
"""

import hashlib
import importlib
import importlib.util
import json
import os
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..files import digest, file_sha256
from ..images import Preprocessing
from . import devices

# Raised when the bytes of an embedding would change for the same image and the same encoder.
EMBED_VERSION = 2

# What a checkpoint is made of; *.model is a tokenizer's.
CHECKPOINT_PATTERNS = ("*.json", "*.safetensors", "*.model")
# What every backend's resolve() must tell.
RESOLVED_KEYS = ("model", "weights_sha256", "preprocessing", "dimension", "versions")


class Encoder(Protocol):
    """Images in, embeddings out.

    `provenance` is what `resolve_encoder` wrote; `preprocessing` says how the images must come. Three more
    attributes may be there: `device` (what it runs on), `batch_size` (images per call where the configuration leaves
    the choice to the encoder) and `n_streams` (calls that may run at once, in threads).
    """

    provenance: dict
    preprocessing: Preprocessing

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Embed a batch of images.

        Parameters
        ----------
        images : array of shape (n_images, size, size, 3), uint8, RGB

        Returns
        -------
        array of shape (n_images, n_dims), float32, rows of length 1

        Raises
        ------
        MemoryError
            If the memory of the device is too small for so many images; it is then called with fewer.
        """
        ...


class TextEncoder(Protocol):
    """Texts in, embeddings out, to be compared with those of images."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts.

        Returns
        -------
        array of shape (n_texts, n_dims), float32, rows of length 1
        """
        ...


def may_use_gpu(settings: dict, device: str) -> bool:
    """Tell whether an encoder, as it is configured, runs on a GPU where there is one."""
    return device != "cpu" and settings["runtime"] == "torch"


def may_understand_texts(settings: dict) -> bool:
    """Tell, without importing it, whether an encoder as it is configured has a text tower."""
    backend = settings["backend"]
    if backend.endswith(".py"):
        return os.path.isfile(backend) and "def load_text(" in Path(backend).read_text("utf-8", "replace")
    return backend == "siglip"


def settings_digest(name: str, settings: dict) -> str:
    """Digest what makes it necessary to resolve the encoder again: 16 hexadecimal digits.

    Of its local files, it is size and time stamp: a checkpoint put in the place of another may be the older one, and
    so would not be noticed as a newer file.

    Raises
    ------
    InputError
        If its backend is a Python file that is not there.
    """
    stats = [(path.name, path.stat()) for path in _local_files(name, settings)]
    identities = [(file, found.st_size, found.st_mtime_ns) for file, found in stats]
    return digest([settings, identities, EMBED_VERSION])


def provenance_digest(provenance: dict) -> str:
    """Digest what changes the numbers: 16 hexadecimal digits.

    Names do not: the digests of weights, configuration and code say what they stand for.
    """
    names = ("name", "backend", "model", "revision", "commit", "versions")
    return digest({key: value for key, value in provenance.items() if key not in names})


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


def provenance_to_text(provenance: dict) -> dict[str, str]:
    """Turn `encoder.json` into the values that databases record, its digest among them."""
    values = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in provenance.items()
    }
    return {**values, "digest": provenance_digest(provenance)}


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


def changed(name: str, key: str, path: str) -> InputError:
    """Say that what an encoder is made of has changed since it was resolved."""
    return InputError(
        f"encoders.{name}.{key}: {path!r} is no longer what encoder.json describes; run the same command again, which "
        "embeds every photo with what is there now, or put the old one back"
    )


def files_sha256(paths: list[Path]) -> str:
    """Digest one file, or several in the order of their names: 64 hexadecimal digits."""
    digests = [file_sha256(path) for path in sorted(paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: version(package) for package in packages}


def _local_files(name: str, settings: dict) -> list[Path]:
    """List the local files that an encoder is made from, without importing its backend; none for a name on the hub."""
    backend, model = settings["backend"], settings.get("model")
    if backend.endswith(".py") and not os.path.isfile(backend):
        raise InputError(f"encoders.{name}.backend: no file {backend!r}; give the path of a Python file")
    files = [Path(backend)] if backend.endswith(".py") else []
    if model and os.path.isdir(model):
        files += sorted(path for pattern in CHECKPOINT_PATTERNS for path in Path(model).glob(pattern) if path.is_file())
    return files


def _backend(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(f".{name}", __name__)
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
