"""A contact sheet: one HTML file with thumbnails in groups, which needs nothing else."""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from ..util.files import write_text
from ..util.text import printable

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }}
body {{ margin: 24px auto; max-width: 1100px; padding: 0 16px; }}
h1 {{ font-size: 20px; }} h2 {{ font-size: 15px; margin: 24px 0 8px; }}
ol {{ display: flex; flex-wrap: wrap; gap: 14px; margin: 0; padding: 0; list-style: none; }}
li {{ width: 150px; }}
img, .none {{ display: block; width: 150px; height: 112px; object-fit: contain; background: #8882; }}
a {{ color: inherit; text-decoration: none; }} a:hover {{ text-decoration: underline; }}
small {{ display: block; opacity: .7; font-size: 12px;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
small.uuid {{ font-family: ui-monospace, monospace; font-size: 11px; user-select: all; }}
b {{ display: block; font-weight: 600; }}
</style>
<h1>{title}</h1>
"""


def write_contact_sheet(
    path: str,
    title: str,
    groups: Iterable[tuple[str, list[tuple[str, str, str]]]],
    thumbnails: dict[str, bytes],
) -> None:
    """Write the sheet.

    Parameters
    ----------
    path, title : str
    groups : iterable of (heading, photos)
        `photos` are (UUID, path, caption); a picture that is no photo of the collection has an empty UUID.
    thumbnails : dict
        JPEG files by UUID.
    """
    parts = [_HEAD.format(title=html.escape(printable(title)))]
    for heading, photos in groups:
        parts.append(f"<h2>{html.escape(heading)}</h2>\n<ol>\n" if heading else "<ol>\n")
        parts += [_photo(*photo, thumbnails.get(photo[0])) for photo in photos]
        parts.append("</ol>\n")
    write_text(path, "".join(parts) + "</html>\n")


def _photo(uuid: str, path: str, caption: str, thumbnail: bytes | None) -> str:
    picture = '<span class="none"></span>'
    if thumbnail:
        picture = f'<img src="data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}" alt="">'
    if path:
        link = html.escape(Path(path).absolute().as_uri(), quote=True)
        picture = f'<a href="{link}">{picture}</a>'
    # One line each, cut off where there is no room; a click selects the whole UUID, the path comes up on hovering.
    lines = [
        f"<b>{html.escape(caption)}</b>" if caption else "",
        f"<small>{html.escape(printable(Path(path).parent.name if uuid else Path(path).name))}</small>",
        f'<small class="uuid">{html.escape(uuid)}</small>' if uuid else "",
    ]
    return f'<li title="{html.escape(printable(path), quote=True)}">{picture}{"".join(lines)}</li>\n'
