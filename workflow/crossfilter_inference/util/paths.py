"""Compare paths by the files that they lead to: through links, and in any spelling."""

import os

from .files import StrPath


def is_within(path: StrPath, folder: StrPath) -> bool:
    """Return whether a path, which need not exist, is a folder or lies in it."""
    real, top = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([real, top]) == top:
        return True
    # Another spelling on a disk that ignores case, or a folder that is mounted twice.
    while not _is_same(real, top):
        parent = os.path.dirname(real)
        if parent == real:
            return False
        real = parent
    return True


def is_same_file(path: StrPath, other: StrPath) -> bool:
    """Return whether two paths lead to one file; if one is missing, whether they differ by case at most."""
    real, other = os.path.realpath(path), os.path.realpath(other)
    try:
        return os.path.samefile(real, other)
    except OSError:
        return real.casefold() == other.casefold()


def _is_same(path: str, folder: str) -> bool:
    """Return whether two real paths are one folder, on a file system that numbers its folders."""
    try:
        return os.path.samefile(path, folder) and not os.path.samefile(folder, os.path.dirname(folder))
    except OSError:
        return False
