"""File names of photos: UUIDs (8-4-4-4-12 hexadecimal digits, or 32 without hyphens, in any case), and extensions."""

import re
from importlib.util import find_spec
from typing import NamedTuple


class Extra(NamedTuple):
    """Formats that need a package: what they are called, its module, and their file extensions."""

    name: str
    module: str
    extensions: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.module) is not None


JPEG_EXTENSIONS = (".jpg", ".jpeg")
# Of the formats that are read (`photos.formats`), as cameras, phones and programs write them.
EXTENSIONS = (
    *(*JPEG_EXTENSIONS, ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".heic", ".heif", ".hif"),
)
# Of formats that need a package which an extra installs, by the extra.
EXTRAS = {
    "jxl": Extra("JPEG XL", "pillow_jxl", (".jxl",)),
    "raw": Extra(
        "camera RAW",
        "rawpy",
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
            *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
        ),
    ),
}
_UUID_LENGTH = 36
_UUID_LENGTHS = (_UUID_LENGTH, 32)

_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}", re.IGNORECASE | re.ASCII)
# The usual spelling. Without groups and flags, it takes half the time; there is a name for each photo.
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def readable_extensions() -> tuple[str, ...]:
    """Return the extensions of all formats that are read here."""
    return (*EXTENSIONS, *(name for extra in EXTRAS.values() if extra.is_installed for name in extra.extensions))


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID in one of the accepted spellings."""
    return _UUID.fullmatch(text) is not None


def canonical_uuid(uuid: str) -> str:
    """Return the canonical spelling of a UUID: lower case, with hyphens."""
    if uuid.islower() and len(uuid) == _UUID_LENGTH:
        return uuid
    digits = uuid.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def read_uuid(text: str) -> str:
    """Return the canonical spelling of a UUID in one of the accepted spellings; an empty text if it is none."""
    if len(text) not in _UUID_LENGTHS:
        return ""
    if _CANONICAL.fullmatch(text):
        return text
    return canonical_uuid(text) if is_uuid(text) else ""
