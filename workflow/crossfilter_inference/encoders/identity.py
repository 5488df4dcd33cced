"""The identity of an encoder, as configured and as resolved.

Planning needs it without numpy, Pillow or torch. So this module never imports a backend: it reads the names that a
backend's source file defines.
"""

import ast
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..util.files import damaged, digest, read_json
from ..util.text import printable

# Raise it when the bytes of an embedding change for the same image and the same encoder, and say why in EMBED_CHANGE.
EMBED_VERSION = 3
EMBED_CHANGE = "colours are now converted to sRGB, and the orientation is read from its right place"

# Files of a checkpoint; the last two are a tokenizer's.
CHECKPOINT_PATTERNS = ("*.json", "*.safetensors", "*.model", "merges.txt")

# Keys that every backend's resolve() must return.
RESOLVED_KEYS = ("model", "weights_sha256", "preprocessing", "dimension", "versions")

_TYPES = {"name": str, "backend": str, "model": str, "preprocessing": dict, "dimension": int, "versions": dict}
_CPU_COST = (4.5, 0.035, 1500.0)  # of a backend that defines no CPU_COST: the time of the small network
_WORDS_COST = 60.0  # of a backend that defines no WORDS_COST (benchmarks/WORDS.md)


def read_encoder(path: str | Path) -> dict[str, Any]:
    """Read `encoder.json`.

    Raises
    ------
    InputError
        If it is damaged.
    """
    encoder = read_json(path, **_TYPES)
    if not encoder.keys() >= {*RESOLVED_KEYS}:
        raise damaged(path)
    return encoder


@functools.cache
def backends() -> tuple[str, ...]:
    """List the built-in backends: the modules of this folder that define `resolve` and `load`."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return tuple(path.stem for path in modules if {"resolve", "load"} <= _definitions(path).keys())


def reads_checkpoints(backend: str) -> bool:
    """Return whether a backend loads checkpoints, those of the MODEL_TYPES that it defines."""
    return "MODEL_TYPES" in _definitions(_source(backend))


def backends_for(model_type: object) -> list[str]:
    """List the built-in backends whose MODEL_TYPES include a model type of transformers."""
    return [name for name in backends() if model_type in _definitions(_source(name)).get("MODEL_TYPES", ())]


def may_use_gpu(settings: Mapping[str, Any], device: str) -> bool:
    """Return whether a configured encoder would use a GPU."""
    return device != "cpu" and bool(settings["runtime"] == "torch")


def may_understand_texts(settings: Mapping[str, Any]) -> bool:
    """Return whether the backend of a configured encoder can embed texts. Its checkpoint may still lack a tokenizer."""
    return "load_text" in _definitions(_source(settings["backend"]))


def words_cost(backend: str) -> float:
    """Estimate the seconds in which a backend embeds the words for a map."""
    cost = _definitions(_source(backend)).get("WORDS_COST")
    return cost if isinstance(cost, int | float) and cost > 0 else _WORDS_COST


def cpu_cost(backend: str) -> tuple[float, float, float]:
    """Estimate the cost of an embedding job on a CPU.

    Returns
    -------
    start : float
        Seconds to start the job.
    per_photo : float
        Core seconds for each photo.
    memory : float
        MB.

    Raises
    ------
    InputError
        If the backend defines a CPU_COST of another form.
    """
    cost = _definitions(_source(backend)).get("CPU_COST", _CPU_COST)
    try:
        start, per_photo, memory = cost
        if min(cost) > 0:
            return start, per_photo, memory
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"backend: {backend!r} defines CPU_COST as {cost!r}; write three numbers above 0: seconds to start a job, core "
        "seconds per photo, MB of memory"
    )


def settings_digest(name: str, settings: Mapping[str, Any]) -> str:
    """Digest the settings and local files that an encoder is resolved from: 16 hexadecimal digits.

    A local file counts with its size and timestamp. A timestamp alone would not do: a checkpoint that replaces
    another may be the older one.

    Raises
    ------
    InputError
        If the backend is a Python file that does not exist.
    """
    stats = [(path.name, path.stat()) for path in _local_files(name, settings)]
    identities = [(file, found.st_size, found.st_mtime_ns) for file, found in stats]
    return digest([settings, identities, EMBED_VERSION])


# Names do not count: the digests of weights, configuration and code identify what they name.
_NAMES = ("name", "backend", "model", "revision", "commit", "versions")


def provenance_digest(provenance: Mapping[str, Any]) -> str:
    """Digest what determines the numbers of an embedding: 16 hexadecimal digits."""
    return digest({key: value for key, value in provenance.items() if key not in _NAMES})


def is_another_version(recorded: Mapping[str, str], provenance: Mapping[str, Any]) -> bool:
    """Return whether a recorded encoder differs from another in its embed version, and in nothing else that counts.

    Parameters
    ----------
    recorded : mapping
        Values of `provenance_to_text`.
    provenance : mapping
        The contents of `encoder.json`.
    """
    ignored = {*_NAMES, "digest", "embed_version"}
    before, after = (
        {key: value for key, value in values.items() if key not in ignored}
        for values in (recorded, provenance_to_text(provenance))
    )
    version = recorded.get("embed_version", "")
    return before == after and version.isdecimal() and version != str(provenance["embed_version"])


def provenance_to_text(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Convert `encoder.json` into the values that databases record, including its digest."""
    values = {
        key: printable(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in provenance.items()
    }
    return {**values, "digest": provenance_digest(provenance)}


def _source(backend: str) -> Path:
    """Return the source file of a built-in backend or of a user's."""
    return Path(backend) if backend.endswith(".py") else Path(__file__).with_name(f"{backend}.py")


def _definitions(source: Path) -> dict[str, Any]:
    """Read the names that a module defines or imports at its top level, with the values of literals (else None).

    A file that cannot be read or parsed has no names; the job that loads it reports why.
    """
    try:
        statements = ast.parse(source.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, Any] = {}
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name):
                found[name] = None
            case ast.ImportFrom(names=names):
                found |= dict.fromkeys(alias.asname or alias.name for alias in names)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = _literal(value)
    return found


def _literal(value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def _local_files(name: str, settings: Mapping[str, Any]) -> list[Path]:
    """List the local files of an encoder, without importing its backend; a model on the hub has none."""
    backend, model = settings["backend"], settings.get("model")
    if backend.endswith(".py") and not os.path.isfile(backend):
        raise InputError(f"encoders.{name}.backend: {backend!r} does not exist; give the path of a Python file")
    files = [Path(backend)] if backend.endswith(".py") else []
    if model and os.path.isdir(model):
        files += sorted(path for pattern in CHECKPOINT_PATTERNS for path in Path(model).glob(pattern) if path.is_file())
    return files
