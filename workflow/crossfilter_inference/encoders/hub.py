"""Checkpoints: download them from the model hub, find them in its cache, digest them.

A checkpoint is a folder with `config.json`, `*.safetensors` and `preprocessor_config.json`, and a tokenizer if the
model understands text. A commit on the hub identifies its contents; those of a local folder are digested.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError
from ..util.files import file_sha256
from .identity import CHECKPOINT_PATTERNS


def fetch_checkpoint(model: str, revision: str) -> Path:
    """Return the folder of a checkpoint; if it is missing from the hub's cache, download it.

    Parameters
    ----------
    model : str
        A local folder, or a name on the hub.
    revision : str
        Branch, tag or commit on the hub.

    Raises
    ------
    InputError
        If the model does not exist, cannot be downloaded, or is not a checkpoint.
    """
    folder = Path(model) if os.path.isdir(model) else _fetch(model, revision)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise InputError(
            f"model: {str(folder)!r} holds no checkpoint (config.json and *.safetensors); set it to a folder that "
            "holds one, or to a name on the hub"
        )
    return folder


def describe_checkpoint(model: str, folder: Path) -> dict[str, Any]:
    """Identify a checkpoint for `encoder.json`: its commit on the hub (None for a local folder) and its digests."""
    return {"commit": None if os.path.isdir(model) else folder.name, **_digests(folder)}


@contextmanager
def resolved_checkpoint(provenance: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder of a resolved checkpoint, offline; at the end of the block, check that it has not changed.

    A local folder is digested while the block runs, so that loading is not slower.

    Raises
    ------
    InputError
        If the checkpoint has changed since it was resolved, or is no longer in the hub's cache.
    """
    if provenance["commit"] is not None:
        yield _cached(provenance["name"], provenance["model"], provenance["commit"])
        return
    folder = Path(provenance["model"])
    with ThreadPoolExecutor(1, "digest") as pool:
        digests = pool.submit(_digests, folder)
        yield folder
        if digests.result().items() <= provenance.items():
            return
    raise changed(provenance["name"], "model", provenance["model"])


def import_transformers() -> ModuleType:
    """Import transformers without its progress bars, and without warnings about weights that are not used."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def read_config(folder: Path, settings: Mapping[str, Any], model_types: tuple[str, ...]) -> Any:
    """Read the configuration of a checkpoint, as an object of transformers.

    Raises
    ------
    InputError
        If its model type is not one of `model_types`, those that the backend can load.
    """
    config = import_transformers().AutoConfig.from_pretrained(folder)
    if config.model_type not in model_types:
        raise InputError(
            f"model: {settings['model']!r} is of type {config.model_type!r}; the backend {settings['backend']} reads "
            f"{' and '.join(model_types)}; choose another model or backend"
        )
    return config


def changed(name: str, key: str, path: str) -> InputError:
    """Return the error for an encoder whose files have changed since it was resolved."""
    return InputError(
        f"encoders.{name}.{key}: {path!r} no longer matches encoder.json; run the same command again to embed every "
        "photo with the changed encoder, or restore the old one"
    )


def files_sha256(paths: list[Path]) -> str:
    """Digest a file, or several in the order of their paths: 64 hexadecimal digits."""
    digests = [file_sha256(path) for path in sorted(paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: version(package) for package in packages}


def _digests(folder: Path) -> dict[str, str]:
    return {
        "weights_sha256": files_sha256(list(folder.glob("*.safetensors"))),
        "config_sha256": files_sha256([folder / "config.json", folder / "preprocessor_config.json"]),
    }


def _fetch(model: str, revision: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(CHECKPOINT_PATTERNS)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise InputError(
            f"model: {model!r} is neither a folder nor a model on the hub with revision {revision!r}; check both names"
        ) from None
    except OSError:  # includes the hub's own LocalEntryNotFoundError, and every connection error
        raise InputError(
            f"model: {model!r} is not in the local cache and the hub cannot be reached; either run the same command "
            "once with network access, or set model to a folder that holds the checkpoint, or choose "
            "embedding_type: EFFICIENTNET_LITE0, which needs no network"
        ) from None


def _cached(name: str, model: str, commit: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    patterns = list(CHECKPOINT_PATTERNS)
    try:
        return Path(snapshot_download(model, revision=commit, allow_patterns=patterns, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        raise InputError(
            f"encoders.{name}.model: commit {commit} of {model!r} is not in the hub's cache on this machine; download "
            f"it on a machine with network access: hf download {model} --revision {commit}"
        ) from None
