"""Encoders: what turns images into embeddings.

A backend is a module with two functions:

    resolve(settings) -> dict       what the encoder is, with everything that changes its numbers; the only
                                    one that may use the network
    load(resolved) -> Encoder       the encoder itself, offline

`backend: path/to/file.py` in the configuration brings a backend of one's own.
"""

import hashlib
import importlib
import importlib.util
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
BACKENDS = ("efficientnet_lite0", "siglip")


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


def local_files(settings: dict) -> list[str]:
    """List the local files that an encoder is made from, without importing its backend."""
    files = [settings["backend"]] if settings["backend"].endswith(".py") else []
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
        resolved = _backend(settings["backend"]).resolve(settings)
    except InputError as error:
        raise InputError(f"encoders.{name}: {error}") from None
    if settings["backend"].endswith(".py"):
        resolved["backend_sha256"] = file_sha256(settings["backend"])
    return {"name": name, **settings, **resolved, "embed_version": EMBED_VERSION}


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
    if not os.path.isfile(name):
        raise InputError(f"backend: no file {name!r}; give the path of a Python file, or one of {BACKENDS}")
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
