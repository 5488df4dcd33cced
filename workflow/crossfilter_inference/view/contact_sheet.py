"""Write a contact sheet: one self-contained HTML file with thumbnails in groups."""

import base64
from collections.abc import Iterable
from pathlib import Path

from ..photos.names import read_uuid
from ..util.files import write_text
from ..util.text import Html

# UUID (empty for a file outside the collection), path, caption, whether the file is missing
Picture = tuple[str, str, str, bool]

_HEAD = Html("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 24px auto; max-width: 1100px; padding: 0 16px; }
h1 { font-size: 20px; } h2 { font-size: 15px; margin: 24px 0 8px; }
ol { display: flex; flex-wrap: wrap; gap: 14px; margin: 0; padding: 0; list-style: none; }
li { width: 150px; }
img, .none { display: block; width: 150px; height: 112px; object-fit: contain; background: #8882; }
a { color: inherit; text-decoration: none; } a:hover { text-decoration: underline; }
small { display: block; opacity: .7; font-size: 12px;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
small.uuid { font-family: ui-monospace, monospace; font-size: 11px; user-select: all; }
b { display: block; font-weight: 600; }
.missing img { opacity: .5; }
</style>
<h1>$title</h1>
""")


def write_contact_sheet(
    path: str,
    title: str,
    groups: Iterable[tuple[str, list[Picture]]],
    thumbnails: dict[str, bytes],
) -> None:
    """Write a contact sheet.

    Parameters
    ----------
    path : str
        HTML file to write.
    title : str
    groups : iterable of (heading, pictures)
        An empty heading is omitted.
    thumbnails : dict
        JPEG files by UUID.
    """
    parts = [_HEAD.fill(title=title)]
    for heading, pictures in groups:
        parts.append(Html("<h2>$heading</h2>\n<ol>\n" if heading else "<ol>\n").fill(heading=heading))
        parts += [_item(*picture, thumbnails.get(picture[0])) for picture in pictures]
        parts.append(Html("</ol>\n"))
    write_text(path, Html.of([*parts, Html("</html>\n")]))


def _item(uuid: str, path: str, caption: str, is_missing: bool, thumbnail: bytes | None) -> Html:
    picture = Html('<span class="none"></span>')
    if thumbnail:
        jpeg = base64.b64encode(thumbnail).decode()
        picture = Html('<img src="data:image/jpeg;base64,$jpeg" alt="">').fill(jpeg=jpeg)
    if path and not is_missing:
        picture = Html('<a href="$link">$picture</a>').fill(link=Path(path).absolute().as_uri(), picture=picture)
    is_named = not read_uuid(Path(path).stem)
    lines = [Path(path).name] * is_named + [Path(path).parent.name] * bool(uuid)
    # CSS truncates each line; a click selects the whole UUID, and a tooltip shows the path.
    return Html('<li$dimmed title="$path">$picture$caption$missing$lines$uuid</li>\n').fill(
        dimmed=Html(' class="missing"') if is_missing else "",
        path=path,
        picture=picture,
        caption=Html("<b>$caption</b>").fill(caption=caption) if caption else "",
        missing=Html("<b>file missing</b>") if is_missing else "",
        lines=Html.of([Html("<small>$line</small>").fill(line=line) for line in lines if line]),
        uuid=Html('<small class="uuid">$uuid</small>').fill(uuid=uuid) if uuid else "",
    )
