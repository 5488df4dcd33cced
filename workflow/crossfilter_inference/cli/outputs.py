"""The files that commands write for their users: checked before the work, so that nothing else is destroyed.

Every output passes `check_output`. It refuses the database, every file of a state folder, every path in a folder of
photos, and an existing file whose content is of another kind than is written. With `--force`, a file of another kind is
replaced, but never an image, a video or an SQLite database that is not our own export. Files that Snakemake writes for
its users pass it too. A folder of outputs passes `check_folder`.
"""

import argparse
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..db import crossfilter
from ..db.state import is_state_folder, state_folder
from ..errors import InputError
from ..photos.names import is_uuid
from ..util.files import new_part, read_json
from ..util.paths import is_same_file, is_within

_HEAD = 4096  # bytes that tell the kind of a file


def _is_image(head: bytes) -> bool:
    starts = (
        *(
            b"\xff\xd8\xff",
            b"\x89PNG",
            b"GIF8",
            b"II*\0",
            b"II\x2b\0",
            b"MM\0*",
            b"MM\0\x2b",
            b"BM",
            b"8BPS",
            b"\xff\x0a",
        ),
        *(b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"IIRO", b"IIU\0", b"FUJIFILM", b"\x1aE\xdf\xa3"),
    )
    return head.startswith(starts) or head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "))


def _is_html(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _is_uuid_list(head: bytes) -> bool:
    return is_uuid(head.split(b"\n", 1)[0].strip().decode("ascii", "replace"))


CROSSFILTER, _SQLITE, _IMAGE = "an export for Crossfilter", "an SQLite database", "an image or a video"
HTML, PARQUET, NPY, UUIDS, ZIP = "an HTML file", "a Parquet file", "a NumPy file", "a list of UUIDs", "a ZIP file"
_TAR, _CWL, _PROFILE = "a TAR archive", "a CWL file", "a profile of Snakemake"
_KINDS: dict[str, Callable[[bytes], bool]] = {
    CROSSFILTER: crossfilter.is_export,
    _SQLITE: lambda head: head.startswith(b"SQLite format 3\0"),
    HTML: _is_html,
    PARQUET: lambda head: head.startswith(b"PAR1"),
    NPY: lambda head: head.startswith(b"\x93NUMPY"),
    UUIDS: _is_uuid_list,
    ZIP: lambda head: head.startswith(b"PK\3\4"),
    _TAR: lambda head: head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar",
    _CWL: lambda head: head.startswith(b"{") and b'"cwlVersion"' in head,
    _PROFILE: lambda head: b"Clock type: " in head and b"ttot" in head,
    _IMAGE: _is_image,
}
_NEVER = (CROSSFILTER, _SQLITE, _IMAGE)  # except by the same kind

# Options with a file or a folder to write, and Snakemake's default if it needs no name.
_WRITTEN_BY_SNAKEMAKE = {
    "--report": "report.html",
    "--report-html-path": "",
    "--archive": "",
    "--export-cwl": "",
    "--runtime-profile": "",
    "--generate-unit-tests": ".tests/unit",
}


@dataclass(frozen=True)
class Protected:
    """What no output may touch: a database, its state folder, and folders of photos."""

    database: str
    photo_folders: Sequence[str]

    def refusal(self, path: str) -> str:
        """Say in words why nothing is written to a real path; empty if it is free."""
        if any(is_same_file(path, f"{self.database}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")):
            return "is the database of the collection"
        state = state_folder(self.database)
        if is_within(path, state) or _is_linked_in(path, state):
            return "belongs to the state folder of the collection"
        for folder in self.photo_folders:
            if is_within(path, folder):
                return f"is in {folder!r}, a folder of photos"
        if any(is_state_folder(parent) for parent in Path(path).parents):
            return "is in the state folder of another collection"
        return ""


def protected_by(database: str, config: Config | None) -> Protected:
    """Find what no output may touch: the folders of photos are those of the configuration, and of all last runs."""
    folders = list(config.input_dir) if config else []
    for path in Path(state_folder(database)).glob("*/config.json"):
        found = read_json(path).get("input_dir", [])
        folders += [found] if isinstance(found, str) else found
    return Protected(database, folders)


def written_by_snakemake(options: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split options of Snakemake: the files that it writes, by the option that names each; and all other options."""
    reader = argparse.ArgumentParser(
        "snakemake", usage=argparse.SUPPRESS, add_help=False, argument_default=argparse.SUPPRESS
    )
    for option, default in _WRITTEN_BY_SNAKEMAKE.items():
        reader.add_argument(option, nargs="?" if default else None, const=default or None)
    found, others = reader.parse_known_args(options)
    return {f"--{name.replace('_', '-')}": path for name, path in vars(found).items()}, others


def check_snakemake(options: Sequence[str], config: Config) -> None:
    """Check the files that Snakemake would write, by its command line; relative paths start in the current folder.

    Raises
    ------
    InputError
        If one of them may not be written, or cannot.
    """
    written, _ = written_by_snakemake(options)
    kinds = {"--archive": _TAR, "--export-cwl": _CWL, "--runtime-profile": _PROFILE}
    for option, path in written.items():
        protected = protected_by(config.output_embeddings_db, config)
        if option == "--generate-unit-tests":
            if why := protected.refusal(os.path.realpath(path)):
                raise InputError(f"{option}: {path!r} {why}; name another folder. Nothing was written")
        else:
            kind = kinds.get(option, ZIP if path.endswith(".zip") else HTML)
            check_output(option, Path(path), kind, protected, force=None)


def check_output(option: str, path: Path, kind: str, protected: Protected, *, force: bool | None) -> Path:
    """Check that a command may write a file, and can; write nothing.

    Parameters
    ----------
    option : str
        Option that names the file, for messages.
    path : Path
    kind : str
        Kind of the file that is written, such as `HTML`.
    protected : Protected
    force : bool or None
        Whether the file may replace a file of another kind; None if the command has no option that allows it.

    Returns
    -------
    Path
        The file to write: links are followed.

    Raises
    ------
    InputError
        If it may not be written, or cannot.
    """

    def refuse(why: str, fix: str = "name another file") -> InputError:
        return InputError(f"{option}: {str(path)!r} {why}; {fix}. Nothing was written")

    real = os.path.realpath(path)
    if why := protected.refusal(real):
        raise refuse(why)
    with reporting_errors(option, path):
        if kind == CROSSFILTER and any(os.path.lexists(f"{real}-{name}") for name in ("journal", "wal")):
            raise refuse("has a journal: another program is writing to it, or was killed", "close that program")
        if os.path.lexists(real):
            status = os.stat(real)
            if stat.S_ISDIR(status.st_mode):
                raise refuse("is a folder", "name a file")
            if not stat.S_ISREG(status.st_mode):
                raise refuse("is not a regular file")
            found = _kind_of(real)
            if found in _NEVER and found != kind:
                raise refuse(f"exists and is {found}, which is never replaced")
            if found not in (kind, "") and not force:
                fix = "" if force is None else ", or add --force to replace it"
                raise refuse(f"exists and is {found}, not {kind}", f"name another file{fix}")
        _check_writable(Path(real), refuse)
    return Path(real)


def check_folder(option: str, path: Path, subfolders: Iterable[str], protected: Protected) -> Path:
    """Check that a command may write files into the subfolders of a folder, and can; write nothing.

    Parameters
    ----------
    option : str
        Option that names the folder, for messages.
    path : Path
    subfolders : iterable of str
        Names of the folders of the files.
    protected : Protected

    Returns
    -------
    Path
        The folder: links are followed.

    Raises
    ------
    InputError
        If they may not be written, or cannot.
    """

    def refuse(why: str, fix: str = "name another folder") -> InputError:
        return InputError(f"{option}: {str(path)!r} {why}; {fix}. Nothing was written")

    real = Path(os.path.realpath(path))
    for name in ("", *subfolders):
        if why := protected.refusal(os.path.realpath(real / name)):
            raise refuse(f"{name and f'has the subfolder {name!r}, which '}{why}")
    with reporting_errors(option, path):
        if os.path.lexists(real) and not real.is_dir():
            raise refuse("exists and is not a folder")
        _check_writable(real / "file", refuse)
    return real


def _check_writable(file: Path, refuse: Callable[..., InputError]) -> None:
    """Check that a file can be written; its folder may have to be made."""
    folder = file.parent
    if folder.exists():
        new_part(file).unlink()
    elif not folder.parent.is_dir():
        raise refuse(f"is in {str(folder)!r}, which does not exist", "create this folder")
    elif not os.access(folder.parent, os.W_OK | os.X_OK):
        raise refuse(f"cannot be written (no permission to write in {str(folder.parent)!r})")


@contextmanager
def reporting_errors(option: str, path: Path) -> Iterator[None]:
    """Turn an error of the file system, met while writing an output, into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{option}: cannot write {str(path)!r} ({error.strerror or error}); fix this, or name another file"
        ) from None


def _kind_of(path: str) -> str:
    """Judge the kind of a file by its content; empty if it has none."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        return ""
    return next((kind for kind, is_kind in _KINDS.items() if is_kind(head)), "a file of another kind")


def _is_linked_in(path: str, folder: str) -> bool:
    """Return whether a file has another name in a folder (a hard link)."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
        return False
    files = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return any(os.path.samestat(status, os.lstat(file)) for file in files if os.path.lexists(file))
