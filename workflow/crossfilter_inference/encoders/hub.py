"""Checkpoints."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from ..errors import InputError
from ..util.files import file_sha256


def changed(name: str, key: str, path: str) -> InputError:
    """Say that what an encoder is made of has changed since it was resolved."""
    return InputError(
        f"encoders.{name}.{key}: {path!r} is no longer what encoder.json describes; run the same command again, which "
        "embeds every photo with what is there now, or put the old one back"
    )


def files_sha256(paths: list[Path]) -> str:
    """Digest one file, or several in the order of their names: 64 hexadecimal digits."""
    digests = [file_sha256(path) for path in sorted(paths)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages."""
    return {package: version(package) for package in packages}
