"""Checkpoints: download them from the model hub, find them in its cache, and check that they have not changed."""

import errno
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError
from ..photos.image import Preprocessing
from .checkpoint import digests, identities
from .identity import CHECKPOINT_PATTERNS

# Copies of the same weights beside those of transformers, which would double the download.
_FOR_OTHER_PROGRAMS = ("open_clip_*", "*/*")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        If the model does not exist, or cannot be downloaded.
    """
    if os.path.isdir(model):
        return Path(model)
    if model.startswith(("/", ".")):
        raise InputError(
            f"model: the folder {model!r} does not exist; give the path of a checkpoint, or a name on the hub"
        )
    return _fetch(model, revision)


def describe_checkpoint(model: str, folder: Path, preprocessing: Preprocessing, dimension: int) -> dict[str, Any]:
    """Describe a checkpoint for `encoder.json`; `commit` is that on the hub, or None for a local folder."""
    return {
        "commit": None if os.path.isdir(model) else folder.name,
        **digests(folder),
        "preprocessing": preprocessing.to_json(),
        "dimension": dimension,
        "versions": versions("torch", "transformers", "pillow"),
    }


@contextmanager
def resolved_checkpoint(provenance: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder of a resolved checkpoint, offline; at the end of the block, check that it has not changed.

    It is digested while the block runs, so that loading is not slower. No file may be replaced meanwhile, so the files
    that were digested are those that were loaded.

    Raises
    ------
    InputError
        If the checkpoint has changed since it was resolved, or is no longer in the hub's cache.
    """
    name, model, commit = provenance["name"], provenance["model"], provenance["commit"]
    folder = Path(model) if commit is None else _cached(name, model, commit)
    failure: Exception | None = None
    try:
        before = identities(folder)
        with ThreadPoolExecutor(1, "digest") as pool:
            found = pool.submit(digests, folder)
            try:
                yield folder
            except Exception as error:  # loading other weights than those that were resolved can fail in any way
                failure = error
            is_unchanged = found.result().items() <= provenance.items() and identities(folder) == before
        if is_unchanged:
            if failure is not None:
                raise failure
            return
    except InputError as error:
        raise InputError(f"encoders.{name}: {error}") from None
    if commit is None:
        raise changed(name, "model", model)
    raise InputError(
        f"encoders.{name}.model: the files of {model!r} in {str(folder)!r} no longer match encoder.json; download them "
        f"again: hf download {model} --revision {commit} --force-download"
    )


def import_transformers() -> ModuleType:
    """Import transformers without its progress bars, and without warnings about weights that are not used."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def changed(name: str, key: str, path: str) -> InputError:
    """Return the error for an encoder whose files have changed since it was resolved."""
    return InputError(
        f"encoders.{name}.{key}: {path!r} no longer matches encoder.json; run the same command again to embed every "
        "photo with the changed encoder, or restore the old one"
    )


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: version(package) for package in packages}


def _fetch(model: str, revision: str) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    taken, left = list(CHECKPOINT_PATTERNS), list(_FOR_OTHER_PROGRAMS)
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=taken, ignore_patterns=left))
    except errors.GatedRepoError:
        raise InputError(
            f"model: {model!r} is gated: accept its licence on its page ({constants.ENDPOINT}/{model}), log in on this "
            "machine (hf auth login, or set HF_TOKEN), and run the same command again"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise InputError(
            f"model: {model!r} is neither a folder nor a model on the hub with revision {revision!r}; check both "
            "names, and if the model is private, log in (hf auth login)"
        ) from None
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _not_fetched(model, error) from None


def _not_fetched(model: str, error: Exception) -> InputError:
    """Make the error for a checkpoint that could not be downloaded."""
    others = (
        "set model to a folder that holds the checkpoint, or choose embedding_type: EFFICIENTNET_LITE0, which needs no "
        "network"
    )
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        from huggingface_hub import constants

        return InputError(
            f"model: the disk of {constants.HF_HUB_CACHE!r} is full, so {model!r} cannot be downloaded; free some "
            "space, or set HF_HUB_CACHE to a folder on another disk"
        )
    response = next(
        (found for e in (error, error.__cause__) if (found := getattr(e, "response", None)) is not None), None
    )
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return InputError(
            f"model: the hub refuses access to {model!r} (HTTP {status}); log in with an account that may read it "
            f"(hf auth login, or set HF_TOKEN), or {others}"
        )
    if status is not None:
        return InputError(f"model: the hub cannot deliver {model!r} (HTTP {status}); try again later, or {others}")
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return InputError(
            f"model: {model!r} cannot be downloaded to {os.fspath(error.filename)!r} ({error.strerror}); fix this, or "
            "set HF_HUB_CACHE to another folder"
        )
    return InputError(
        f"model: {model!r} is not in the local cache and the hub cannot be reached; either run the same command once "
        f"with network access, or {others}"
    )


def _cached(name: str, model: str, commit: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(CHECKPOINT_PATTERNS)
    try:
        return Path(snapshot_download(model, revision=commit, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        raise InputError(
            f"encoders.{name}.model: commit {commit} of {model!r} is not in the hub's cache on this machine; download "
            f"it on a machine with network access: hf download {model} --revision {commit}"
        ) from None
