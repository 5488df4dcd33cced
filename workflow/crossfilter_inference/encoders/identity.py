"""What an encoder is: as it is configured, and as it was resolved; without importing one."""

import json
import os
from pathlib import Path

from ..errors import InputError
from ..util.files import digest

# Raised when the bytes of an embedding would change for the same image and the same encoder.
EMBED_VERSION = 2

# What a checkpoint is made of; *.model is a tokenizer's.
CHECKPOINT_PATTERNS = ("*.json", "*.safetensors", "*.model")

# What every backend's resolve() must tell.
RESOLVED_KEYS = ("model", "weights_sha256", "preprocessing", "dimension", "versions")


def backends() -> tuple[str, ...]:
    """Name the built-in backends."""
    return ("efficientnet_lite0", "siglip")


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


def provenance_to_text(provenance: dict) -> dict[str, str]:
    """Turn `encoder.json` into the values that databases record, its digest among them."""
    values = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in provenance.items()
    }
    return {**values, "digest": provenance_digest(provenance)}


def _local_files(name: str, settings: dict) -> list[Path]:
    """List the local files that an encoder is made from, without importing its backend; none for a name on the hub."""
    backend, model = settings["backend"], settings.get("model")
    if backend.endswith(".py") and not os.path.isfile(backend):
        raise InputError(f"encoders.{name}.backend: no file {backend!r}; give the path of a Python file")
    files = [Path(backend)] if backend.endswith(".py") else []
    if model and os.path.isdir(model):
        files += sorted(path for pattern in CHECKPOINT_PATTERNS for path in Path(model).glob(pattern) if path.is_file())
    return files
