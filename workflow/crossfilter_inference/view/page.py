"""The page `map.html`: the globe in one file, which needs nothing else and asks nobody for anything.

Its parts lie in `workflow/page/`. The data in it are JSON, with arrays as base64 of little-endian numbers; the
thumbnails are base64, one a line.
"""

import base64
import html
import json
from pathlib import Path, PurePosixPath
from string import Template

import numpy as np

from ..map.contents import MapContents
from ..util.text import counted, printable

_PARTS = Path(__file__).resolve().parent / "web"
_SCRIPTS = ("sphere.js", "pictures.js", "page.js")
MOST_BYTES = 95_000_000  # of the file
_MOST_PHOTOS = 500_000  # more by lot
_DATA_BYTES = 45_000_000  # of all but thumbnails
_PHOTO_BYTES = 76  # without neighbours: UUID, place, time, quality, folder and region
_NEIGHBOUR_BYTES = 10.7
_MOST_NEIGHBOURS = 8


def make_page(contents: MapContents, photos: np.ndarray, thumbnails: dict[int, bytes]) -> tuple[str, int]:
    """Write the page.

    Parameters
    ----------
    contents : MapContents
    photos : array of shape (n_shown,), int
        Rows of `contents` that are shown, in rising order.
    thumbnails : dict
        JPEG files by row, the most wanted first; those for which the page has no room are left out.

    Returns
    -------
    page : str
        HTML.
    n_thumbnails : int
        Those on it.
    """
    data = _data(contents, photos, _n_neighbours(len(photos)))
    rows = {int(row): i for i, row in enumerate(photos)}
    room = MOST_BYTES - len(_json(data))
    lines = {row: base64.b64encode(jpeg).decode() for row, jpeg in thumbnails.items()}
    fits = np.cumsum([len(line) + 7 for line in lines.values()]) <= room  # with its line's end, and its row in base64
    shown = [row for row, does_fit in zip(lines, fits, strict=True) if does_fit]
    data["thumbnails"] = _base64([rows[row] for row in shown], "<i4")
    heading = counted(len(contents), "photos")
    caption = contents.caption().removeprefix(f"{heading} ")
    if len(photos) < len(contents):
        caption += f"; {len(photos):,} of them, by lot, are on this page"
    part = {name: (_PARTS / name).read_text("utf-8") for name in ("map.html", "page.css", *_SCRIPTS)}
    page = Template(part["map.html"]).substitute(
        title=html.escape(f"{heading}, {contents.embedding_type}"),
        heading=heading,
        caption=html.escape(caption),
        style=part["page.css"].strip(),
        data=_json(data),
        thumbnails="\n".join(lines[row] for row in shown),
        script="\n".join(part[name].removeprefix('"use strict";\n') for name in _SCRIPTS).strip(),
    )
    return page, len(shown)


def choose_photos(by_lot: list[int]) -> np.ndarray:
    """Choose the photos that the page has room for: all, or many by lot, in rising order."""
    return np.sort(np.array(by_lot[:_MOST_PHOTOS], int))


def _n_neighbours(n_images: int) -> int:
    room = (_DATA_BYTES / max(n_images, 1) - _PHOTO_BYTES) / _NEIGHBOUR_BYTES
    return int(np.clip(room, 0, _MOST_NEIGHBOURS))


def _data(contents: MapContents, photos: np.ndarray, n_neighbours: int) -> dict:
    on_page = np.full(len(contents), -1, np.int32)
    on_page[photos] = np.arange(len(photos))
    folders: dict[str, int] = {}
    folder_of, names = [], []
    for row in photos:
        path = PurePosixPath(contents.paths[row])
        folder_of.append(folders.setdefault(str(path.parent), len(folders)))
        names.append(None if path.name == f"{contents.uuids[row]}.jpg" else path.name)
    places = np.column_stack([contents.latitude, contents.longitude])[photos]
    return {
        "type": contents.embedding_type,
        "uuids": [contents.uuids[row] for row in photos],
        "names": names,
        "folders": list(folders),
        "folder": _base64(folder_of, "<i4"),
        "taken": [contents.taken[row] for row in photos],
        "places": _base64(places, "<f4"),
        "neighbours": _base64(on_page[contents.neighbours[photos, :n_neighbours]], "<i4"),
        "similarities": _base64(contents.similarity[photos, :n_neighbours], "<f4"),
        "quality": _base64((100 * contents.kept[photos]).round(), "u1"),
        "region": _base64(contents.region_of[photos], "<i4"),
        "regions": [
            {"name": printable(region.name), "place": [region.latitude, region.longitude]}
            for region in contents.regions
        ],
    }


def _json(data: dict) -> str:
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _base64(values: object, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
