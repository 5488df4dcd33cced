"""UUIDs in file names: 8-4-4-4-12 hexadecimal digits, or 32 without hyphens, in any case."""

import re

_UUID_LENGTH = 36

# Without groups and flags, it takes half the time; there is a name for each photo.
_HEX = "[0-9a-fA-F]"
_UUID = re.compile(f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}|{_HEX}{{32}}")


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID in one of the accepted spellings."""
    return _UUID.fullmatch(text) is not None


def canonical_uuid(uuid: str) -> str:
    """Return the canonical spelling of a UUID: lower case, with hyphens."""
    if uuid.islower() and len(uuid) == _UUID_LENGTH:
        return uuid
    digits = uuid.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
