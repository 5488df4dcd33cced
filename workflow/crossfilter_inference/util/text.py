"""Text that people read: numbers of things, durations, and paths that any terminal can show."""

import os


def counted(n: int, things: str) -> str:
    """Spell a number of things, whose name ends in s: 1 photo, 62 photos, 100,000 photos."""
    return f"{n:,} {things.removesuffix('s') if n == 1 else things}"


def duration(seconds: float) -> str:
    """Spell a time, as roughly as it is known."""
    if seconds < 100:
        return f"{max(round(seconds, -1), 10):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def printable(path: str) -> str:
    """Spell a path so that any terminal, log and database can hold it."""
    if path.isprintable():
        return path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
