"""The files of a checkpoint: what is read, what is digested, and what is refused.

A checkpoint is a folder with

- `config.json`;
- `model.safetensors`, or the files that `model.safetensors.index.json` lists;
- `processor_config.json` (transformers 5) or `preprocessor_config.json`;
- a tokenizer, if the model understands text.

Only these files are read. A file of weights in another format can run code, and a file under another name is not what
transformers loads. So both are refused, like everything that names code or weights elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..util.files import file_sha256
from .identity import backends_for

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
_WEIGHT_PATTERNS = ("*.safetensors*", "*.bin*", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
_AGAIN = "download or copy the checkpoint again"
# Keys of config.json that would load code or weights from elsewhere, or change the numbers.
_REFUSED_KEYS = {
    "auto_map": "names code of the checkpoint, which is never run",
    "quantization_config": "asks for quantized weights, which are not supported",
    "transformers_weights": "names another file of weights",
}


def weight_files(folder: Path) -> list[Path]:
    """List the files of weights that are loaded, sorted.

    Raises
    ------
    InputError
        If there are none, if one is missing, or if an adapter would change them.
    """
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"model: {str(folder)!r} holds an adapter (adapter_config.json), which changes the weights of another "
            "checkpoint; merge it with PEFT (merge_and_unload) and save the result"
        )
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    found = sorted({path.name for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern)})
    if not (folder / CONFIG).is_file() and not found:
        raise InputError(
            f"model: {str(folder)!r} holds no checkpoint ({CONFIG} and {WEIGHTS}); set it to a folder that holds one, "
            "or to a name on the hub"
        )
    others = f" (it holds {', '.join(found[:5])}{' and more' if len(found) > 5 else ''})" if found else ""
    raise InputError(
        f"model: {str(folder)!r} has neither {WEIGHTS} nor {INDEX}{others}; choose a checkpoint that has, or save this "
        "one again with save_pretrained() of transformers, if you trust it"
    )


def _shards(folder: Path) -> list[Path]:
    names = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"model: {str(folder / INDEX)!r} has no weight_map; {_AGAIN}")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"model: {str(folder / INDEX)!r} lists {name!r}, which is not a .safetensors file of the same folder; "
                f"{_AGAIN}"
            )
        if not (folder / name).is_file():
            raise InputError(f"model: {str(folder / INDEX)!r} lists {name}, which is missing; {_AGAIN}")
    return sorted({folder / name for name in names.values()})


def processor_file(folder: Path) -> Path:
    """Find the file that describes the preprocessing; like transformers, prefer `processor_config.json`.

    Raises
    ------
    InputError
        If there is none.
    """
    if (folder / PROCESSOR).is_file() and "image_processor" in read_json_object(folder / PROCESSOR):
        return folder / PROCESSOR
    if (folder / PREPROCESSOR).is_file():
        return folder / PREPROCESSOR
    raise InputError(
        f"model: {str(folder)!r} has neither {PREPROCESSOR} nor {PROCESSOR} with an image_processor, so its "
        "preprocessing is unknown; copy the file of the original checkpoint there"
    )


def read_processor(folder: Path) -> tuple[str, dict[str, Any]]:
    """Read the description of the preprocessing.

    Returns
    -------
    path : str
        For messages.
    values : dict
    """
    path = processor_file(folder)
    values = read_json_object(path)
    if path.name == PROCESSOR:
        values = values["image_processor"]
        if not isinstance(values, dict):
            raise InputError(f"model: image_processor in {str(path)!r} is not a JSON object; {_AGAIN}")
    return str(path), values


def read_config(folder: Path, settings: Mapping[str, Any], model_types: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read `config.json`.

    Parameters
    ----------
    folder : Path
    settings : dict
        The entry under `encoders:`, for messages.
    model_types : tuple of str
        Those that the backend can load; if empty, any.

    Raises
    ------
    InputError
        If its model type is not one of `model_types`, or if it asks for more than loading the weights of the folder.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"model: {str(folder)!r} holds no checkpoint ({CONFIG} is missing); set it to a folder that holds one, or "
            "to a name on the hub"
        )
    config = read_json_object(path)
    for key, why in _REFUSED_KEYS.items():
        if config.get(key) is not None:
            raise InputError(f"model: {key} in {str(path)!r} {why}; choose a checkpoint without it")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or (model_types and model_type not in model_types):
        kind = "names no model_type" if model_type is None else f"is of type {model_type!r}"
        reads = f"reads {' and '.join(model_types)}" if model_types else "needs one"
        raise InputError(
            f"model: {settings['model']!r} {kind}; the backend {settings['backend']} {reads}; "
            f"{another_backend(model_type)}"
        )
    return config


def another_backend(model_type: object) -> str:
    """Tell what to do about a model type that a backend does not load."""
    fitting = backends_for(model_type)
    return f"set backend to {' or '.join(fitting)}" if fitting else "choose another model or backend"


def check_weights(files: list[Path], prefixes: tuple[str, ...], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that files hold the weights of a network: all of them, of the right shapes, finite, and no more.

    Parameters
    ----------
    files : list of Path
    prefixes : tuple of str
        The name of each weight in the files begins with one of these; other names belong to other networks.
    expected : dict
        The shape of each weight, by its name in the files.

    Raises
    ------
    InputError
        With the first weight that is wrong.
    """
    import torch

    folder = files[0].parent
    found = read_weights(files, prefixes)
    unknown = {name for name in found.keys() - expected.keys() if not name.endswith("position_ids")}
    check_names(folder, expected.keys() - found.keys(), unknown)
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise refuse_shape(folder, name, found[name].shape, shape)
        if not torch.isfinite(found[name].float()).all():
            raise InputError(f"model: {str(folder)!r}: the weight {name} is not finite; choose another checkpoint")


def check_names(folder: Path, missing: set[str], unknown: set[str]) -> None:
    """Refuse a checkpoint that lacks weights of its network, or holds more than its configuration describes."""
    if missing:
        raise InputError(
            f"model: {str(folder)!r} lacks {len(missing)} of the weights, the first {min(missing)}; {_AGAIN}"
        )
    if unknown:
        raise InputError(
            f"model: {str(folder)!r} holds {len(unknown)} weights that {CONFIG} does not describe, the first "
            f"{min(unknown)}; {_AGAIN}"
        )


def refuse_shape(folder: Path, name: str, found: Iterable[int], expected: Iterable[int]) -> InputError:
    """Make the error for a weight of another shape than its network's."""
    return InputError(
        f"model: {str(folder)!r}: the weight {name} has shape {tuple(found)}, but {CONFIG} describes "
        f"{tuple(expected)}; {_AGAIN}"
    )


def read_weights(files: list[Path], prefixes: tuple[str, ...]) -> "dict[str, torch.Tensor]":
    """Read the weights whose names begin with one of `prefixes`. They are mapped into memory, and read when used.

    Raises
    ------
    InputError
        If a file is damaged, or if two hold the same weight.
    """
    from safetensors import SafetensorError, safe_open

    weights: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is not a mapping
                    if name in weights:
                        raise InputError(f"model: {str(path)!r} repeats the weight {name}; {_AGAIN}")
                    if name.startswith(prefixes):
                        weights[name] = file.get_tensor(name)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"model: {str(path)!r} is damaged ({first_line(error)}); {_AGAIN}") from None
    return weights


def digests(folder: Path) -> dict[str, str]:
    """Digest the files of a checkpoint that determine the embeddings of images."""
    return {
        "weights_sha256": _files_sha256(weight_files(folder)),
        "config_sha256": _files_sha256([folder / CONFIG, processor_file(folder)]),
    }


def identities(folder: Path) -> list[tuple[int, ...]]:
    """Return values that change if one of these files is written or replaced."""
    files = [folder / CONFIG, processor_file(folder), *weight_files(folder)]
    stats = [path.stat() for path in files]
    return [(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint.

    Raises
    ------
    InputError
        If it cannot be read, or holds no JSON object of finite numbers.
    """
    try:
        values = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"model: {str(path)!r} cannot be read ({first_line(error)}); {_AGAIN}") from None
    if not isinstance(values, dict):
        raise InputError(f"model: {str(path)!r} holds no JSON object; {_AGAIN}")
    return values


def describe_error(path: Path, error: Exception) -> InputError:
    """Make the error for a file of a checkpoint that transformers refuses."""
    return InputError(f"model: {str(path)!r} is not valid ({first_line(error)}); {_AGAIN}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def first_line(error: Exception) -> str:
    """Describe an error of a library in one short line."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _files_sha256(paths: list[Path]) -> str:
    """Digest a file, or several in the order of their paths: 64 hexadecimal digits."""
    found = [file_sha256(path) for path in sorted(paths)]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
