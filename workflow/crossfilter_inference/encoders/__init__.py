"""Encoders: what turns images into embeddings.

A backend is a module with two functions:

    resolve(settings) -> dict       what the encoder is, with everything that changes its numbers (RESOLVED_KEYS at
                                    least); the only one that may use the network
    load(provenance) -> Encoder     the encoder itself, offline, from what resolve said

`backend: path/to/file.py` in the configuration brings a backend of one's own; `docs/encoders.md` shows one.
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

# Raised when the bytes of an embedding would change for the same image and the same encoder.
EMBED_VERSION = 1

# What a checkpoint is made of; *.model is a tokenizer's.
CHECKPOINT_PATTERNS = ("*.json", "*.safetensors", "*.model")
# What every backend's resolve() must tell.
RESOLVED_KEYS = ("model", "weights_sha256", "preprocessing", "dtype", "dimension", "versions")


class Encoder(Protocol):
    """Images in, embeddings out.

    `provenance` is what `resolve_encoder` wrote; `preprocessing` says how the images must come.
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
        """
        ...


def settings_digest(settings: dict) -> str:
    """Digest what makes it necessary to resolve the encoder again: 16 hexadecimal digits."""
    return digest({**settings, "embed_version": EMBED_VERSION})


def provenance_digest(provenance: dict) -> str:
    """Digest what changes the numbers: 16 hexadecimal digits.

    Names do not: the digests of weights, configuration and code say what they stand for.
    """
    names = ("name", "backend", "model", "revision", "commit", "versions")
    return digest({key: value for key, value in provenance.items() if key not in names})


def local_files(name: str, settings: dict) -> list[str]:
    """List the local files that an encoder is made from, without importing its backend.

    Raises
    ------
    InputError
        If its backend is a Python file that is not there.
    """
    files = [settings["backend"]] if settings["backend"].endswith(".py") else []
    if files and not os.path.isfile(files[0]):
        raise InputError(f"encoders.{name}.backend: no file {files[0]!r}; give the path of a Python file")
    return files + checkpoint_files(settings.get("model", ""))


def checkpoint_files(model: str) -> list[str]:
    """List the files of a checkpoint in a local folder; none for a name on the hub."""
    return sorted(str(path) for pattern in CHECKPOINT_PATTERNS for path in Path(model).glob(pattern) if model)


def resolve_encoder(name: str, settings: dict) -> dict:
    """Find out what an encoder is.

    Parameters
    ----------
    name : str
        The embedding type.
    settings : dict
        Its entry under `encoders:`.

    Returns
    -------
    dict
        The contents of `encoder.json`.

    Raises
    ------
    InputError
        If the model cannot be had.
    """
    try:
        resolved = {"name": name, **settings, **_backend(settings["backend"]).resolve(settings)}
    except InputError as error:
        raise InputError(f"encoders.{name}: {error}") from None
    missing = [key for key in RESOLVED_KEYS if key not in resolved]
    if missing:
        raise InputError(
            f"encoders.{name}: {settings['backend']}: resolve() gives no {' and no '.join(missing)}; "
            f"it must return a dictionary with {', '.join(RESOLVED_KEYS)}"
        )
    if settings["backend"].endswith(".py"):
        resolved["backend_sha256"] = file_sha256(settings["backend"])
    return {**resolved, "embed_version": EMBED_VERSION}


def provenance_to_text(provenance: dict) -> dict[str, str]:
    """Turn `encoder.json` into the values that databases record, its digest among them."""
    values = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in provenance.items()
    }
    return {**values, "digest": provenance_digest(provenance)}


def load_encoder(provenance: dict) -> Encoder:
    """Load the encoder that `resolve_encoder` found. Uses no network."""
    return _backend(provenance["backend"]).load(provenance)


def files_sha256(paths: list[Path]) -> str:
    """Digest one file, or several in the order of their names: 64 hexadecimal digits."""
    digests = [file_sha256(path) for path in sorted(paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: version(package) for package in packages}


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
