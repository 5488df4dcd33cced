r"""Text: counts and durations for people, and one escape for each language that text of others is written in.

Names of folders and files, labels, settings and messages of other programs may contain anything. They are kept as they
are, and escaped where they are written:

============================  ==========================================================================
target                        escape
============================  ==========================================================================
terminal, log, one line       `printable`
HTML                          `Html.fill` and `Html.of`, which escape everything that is not `Html`
JSON in an HTML page          `script_json`
the report's RST with Jinja   `rst`
YAML on a command line        `yaml_text`
shell                         `:q` of Snakemake in the rules, which is `shlex.quote`
URL                           `pathlib.Path.as_uri`
TSV                           `files.write_tsv`, which keeps every byte of a path
database                      `stored_path`, which is part of the type of its columns (`db/tables.py`)
============================  ==========================================================================
"""

import html
import json
import logging
import os
import re
import textwrap
import unicodedata
from collections.abc import Iterable
from string import Template
from urllib.parse import quote, unquote_to_bytes

# Joiners are parts of emoji and of scripts of India and Persia; they cannot change other characters.
_JOINERS = "\u200c\u200d"
_URI = "file://"
_PACKAGE = __name__.split(".")[0]


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


INSTALLED = "CROSSFILTER_INFERENCE_INSTALLED"  # environment variable: the installed command was started


def once_with(setting: str) -> str:
    """Write the advice to change a setting for one run; the installed command takes Snakemake's options after `--`."""
    return f"run once with {'-- ' if INSTALLED in os.environ else ''}--config {setting}"


def choosing(key: str, value: str) -> str:
    """Write the advice to change a setting that the installed command has as an option."""
    return f"run with --{key} {value}" if INSTALLED in os.environ else f"set {key}: {value}"


def printable(text: object) -> str:
    r"""Make a text one line that a terminal or a page can show without taking orders from it.

    Escaped as in Python are bytes that are not UTF-8, control characters (newlines and tabs, too), and invisible
    characters that change the direction or the meaning of others: `\n`, `\x1b`, `\xe9`, `\u202e`. Spaces of all
    widths, letters and emoji stay.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else _escaped(c) for c in text)


def printable_lines(text: object) -> str:
    """Make each line of a text printable."""
    return "\n".join(map(printable, str(text).split("\n")))


class PrintableFormatter(logging.Formatter):
    """Make every line of a log printable, whoever wrote it. A message of this package is one line.

    Parameters
    ----------
    inner : Formatter, optional
        What formats the records first.
    """

    def __init__(self, inner: logging.Formatter | None = None):
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        if self._inner is None and record.name.startswith(_PACKAGE) and not record.exc_info:
            return printable(record.getMessage())
        text = self._inner.format(record) if self._inner else super().format(record)
        return printable_lines(text or "")  # some formatters return None for a record that they leave out


def _is_harmless(c: str) -> bool:
    return c.isprintable() or c in _JOINERS or unicodedata.category(c) == "Zs"


def _escaped(c: str) -> str:
    byte = ord(c) - 0xDC00  # as os.fsdecode writes a byte that is not UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else c.encode("unicode_escape").decode()


class Html(str):
    """Text that is HTML already. All other text is escaped when it becomes a part of it."""

    def fill(self, **values: object) -> "Html":
        """Fill in a template with `$name`; values that are not HTML are escaped."""
        return Html(Template(self).substitute({name: _html(value) for name, value in values.items()}))

    @classmethod
    def of(cls, parts: Iterable[object], between: str = "") -> "Html":
        """Join parts; those that are not HTML are escaped."""
        return cls(between.join(map(_html, parts)))


def _html(value: object) -> str:
    return value if isinstance(value, Html) else html.escape(printable(value), quote=True)


def script_json(value: object) -> Html:
    """Write JSON that can stand in a `<script>` element: no text in it can close the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"))  # in ASCII: U+2028 and its like are escaped
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def rst(page: Html) -> str:
    """Write HTML as reStructuredText that Snakemake's report first reads as a Jinja template.

    Braces become character references, so that Jinja finds nothing to evaluate, and nothing of the HTML is taken for
    RST.
    """
    without_braces = page.replace("{", "&#123;").replace("}", "&#125;")
    return f".. raw:: html\n\n{textwrap.indent(without_braces, '   ')}\n"


def yaml_text(value: object) -> str:
    """Write a value as YAML in one line of ASCII, for Snakemake's `--config`.

    It is JSON, but a character beyond U+FFFF has a single escape, as YAML wants.
    """
    text = json.dumps(value, ensure_ascii=False)
    text = re.sub(r"[^ -~]", lambda c: f"\\u{ord(c[0]):04x}" if c[0] <= "\uffff" else f"\\U{ord(c[0]):08x}", text)
    # Snakemake removes quotes at the ends, and would read the rest as YAML without them.
    return f" {text} " if isinstance(value, str) else text


def stored_path(path: str) -> str:
    """Write a path for a database: as it is, or as a `file:` URI if its bytes are not UTF-8.

    A path in a database is absolute and begins with a slash, so that the two cannot be confused.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return _URI + quote(os.fsencode(path))
    return path


def read_path(stored: str) -> str:
    """Read a path that `stored_path` has written."""
    return os.fsdecode(unquote_to_bytes(stored.removeprefix(_URI))) if stored.startswith(_URI) else stored
