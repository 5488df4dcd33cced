"""Decide whether a missing photo is known to be removed: its folder can be read, and its file is not in it.

Everything else is no knowledge: a folder or a file that cannot be read, an empty file, a broken link, a folder that is
empty because its disk is not mounted, a file that the configuration does not name any more (`input_dir`, `exclude`,
`image_extensions`), a folder outside `input_dir` that is missing.
"""

import os
from collections.abc import Callable, Iterable

from .names import canonical_uuid
from .scan import Scan

_UNNAMED = "left out by exclude or image_extensions"


class MissingPhotoSearch:
    """Look for missing photos where they were last seen. Each folder is read once.

    Parameters
    ----------
    folders : list of str
        Folders of `input_dir`.
    scan : Scan
        The scan of these folders.
    excluded_by : function
        From a name to the pattern that excludes it.
    """

    def __init__(self, folders: Iterable[str], scan: Scan, excluded_by: Callable[[str], str]):
        self._excluded_by = excluded_by
        self._names: dict[str, set[str] | str | None] = {}
        self._roots = [os.path.abspath(folder) for folder in folders]
        self._unusable, self._unnamed = scan.unusable(), scan.unnamed
        self._rejected = dict(scan.rejected)
        self._is_complete = not scan.unseen and not any(self._shows_nothing(root) for root in self._roots)

    def doubt(self, uuid: str, path: str) -> str:
        """Return why a photo may still exist; an empty text if it is known to be removed.

        Parameters
        ----------
        uuid : str
        path : str
            Where it was last seen; empty if unknown.
        """
        if reason := self._unusable.get(canonical_uuid(uuid)) or self._rejected.get(path):
            return f"the file is there, but {reason}"
        if not path and canonical_uuid(uuid) in self._unnamed:
            return f"the file is there, but {_UNNAMED}"
        if not any(path.startswith(os.path.join(root, "")) for root in self._roots):
            if path and os.path.lexists(path):
                return "the file is there, outside input_dir"
            if not self._is_complete:
                return "a folder is unreadable or empty, and its own folder is unknown or outside input_dir"
            if not path:
                return ""
            if self._read(os.path.dirname(path)) is None:  # removed, or its disk is not mounted
                return "its folder is missing, and outside input_dir"
        while True:
            folder, name = os.path.split(path)
            names = self._read(folder)
            if isinstance(names, str):
                return names
            if names is None:  # look in the nearest folder that exists
                path = folder
            elif name in names:
                return f"the file or its folder is there, but {_UNNAMED}, or unreadable"
            else:
                return "its folder is empty; perhaps its disk is not mounted" if self._shows_nothing(folder) else ""

    def _read(self, folder: str) -> set[str] | str | None:
        """Return the names in a folder, None if it does not exist, or why it cannot be read."""
        if folder not in self._names:
            try:
                self._names[folder] = {*os.listdir(folder)}
            except FileNotFoundError:
                self._names[folder] = None
            except OSError as error:
                self._names[folder] = f"its folder is unreadable ({error.strerror})"
        return self._names[folder]

    def _shows_nothing(self, folder: str) -> bool:
        """Return whether a folder holds nothing but hidden and excluded names, as that of an unmounted disk may."""
        names = self._read(folder)
        return isinstance(names, set) and all(name.startswith(".") or self._excluded_by(name) for name in names)
