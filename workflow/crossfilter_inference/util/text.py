"""Text for people: counts, durations, and paths that any terminal can show."""

import os


def counted(n: int, things: str) -> str:
    """Format a count with its noun, given in a plural that ends in s: 1 photo, 62 photos, 100,000 photos."""
    return f"{n:,} {things.removesuffix('s') if n == 1 else things}"


def duration(seconds: float) -> str:
    """Format an estimated time: rounded to 10 seconds, minutes or hours."""
    if seconds < 100:
        return f"{max(round(seconds, -1), 10):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def printable(path: str) -> str:
    """Escape what a terminal, log or database cannot show in a path: bytes that are not UTF-8, control characters."""
    if path.isprintable():
        return path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
