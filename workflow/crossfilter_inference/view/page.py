"""The page `map.html`: the globe in one self-contained file, which makes no network requests.

Its parts are in `web/`: the page, its style, and JavaScript modules, which are joined into one script. Its data are
JSON, with arrays as base64 of little-endian numbers; the type `PageData` in `web/collection.js` describes them. The
thumbnails are base64, one per line.
"""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..map.contents import MapContents
from ..map.words import Fits
from ..util.text import Html, counted, printable, script_json

_PARTS = Path(__file__).resolve().parent / "web"
# Each module comes after those that it imports.
_MODULES = (
    "elements.js",
    "sphere.js",
    "points.js",
    "collection.js",
    "server.js",
    "thumbnails.js",
    "layers.js",
    "colourings.js",
    "painting.js",
    "earth.js",
    "marks.js",
    "originals.js",
    "globe.js",
    "legend.js",
    "panel.js",
    "viewer.js",
    "takeaway.js",
    "strip.js",
    "range_filter.js",
    "choice_filter.js",
    "filters.js",
    "words.js",
    "search.js",
    "lasso.js",
    "address.js",
    "page.js",
)
_PHOTO_BYTES = 190  # of the page, for each photo; if there are too many, the page shows a random sample
_DATA_SHARE = 0.63  # of the page, for everything but the thumbnails
_SMALL_SIZE, _QUALITY = 96, 80  # of thumbnails if not all would fit as they are
_NEIGHBOUR_BYTES = 2 * 4 * 4 / 3  # index and similarity, in base64
_MOST_NEIGHBOURS = 8


class PageSettings(TypedDict):
    """The section `page` of the configuration."""

    thumbnail_size: int | Literal["auto"]
    max_megabytes: int


DEFAULTS: PageSettings = {"thumbnail_size": "auto", "max_megabytes": 95}


def make_page(
    contents: MapContents,
    photos: npt.NDArray[Any],
    thumbnails: Mapping[int, bytes],
    fits: Sequence[Fits] = (),
    settings: PageSettings = DEFAULTS,
) -> tuple[str, int]:
    """Write the page as HTML.

    Parameters
    ----------
    contents : MapContents
    photos : array of shape (n_shown,), int
        Rows of `contents` that the page shows, in rising order.
    thumbnails : dict
        JPEG files by row, the most wanted first. The page leaves out those that would make it too large.
    fits : sequence of Fits
        The photos that fit each word best, as rows of `contents`.
    settings : PageSettings

    Returns
    -------
    page : str
        HTML.
    n_thumbnails : int
        Number of thumbnails on the page.
    """
    on_page = np.full(len(contents), -1, np.int32)
    on_page[photos] = np.arange(len(photos))
    data = _data(contents, photos) | _words(fits, on_page)
    most_bytes = settings["max_megabytes"] * 1_000_000
    data |= _neighbours(contents, photos, on_page, int(_DATA_SHARE * most_bytes) - len(script_json(data)))
    without_thumbnails = _fill(contents, len(photos), data | {"thumbnails": ""}, [])
    room, size = most_bytes - len(without_thumbnails.encode("utf-8", "surrogateescape")), settings["thumbnail_size"]
    lines = _fitting(thumbnails, size, room)
    if size == "auto" and len(lines) < len(thumbnails):
        lines = _fitting(thumbnails, _SMALL_SIZE, room)
    data["thumbnails"] = _base64(on_page[[*lines]], "<i4")
    return _fill(contents, len(photos), data, [*lines.values()]), len(lines)


def make_served_page(contents: MapContents, fits: Sequence[Fits]) -> str:
    """Write the page of `crossfilter-inference serve` as HTML: with all photos, but without thumbnails."""
    photos = np.arange(len(contents), dtype=np.int32)
    data = _data(contents, photos) | _words(fits, photos) | {"isServed": True}
    data |= _neighbours(contents, photos, photos, math.ceil(len(photos) * _MOST_NEIGHBOURS * _NEIGHBOUR_BYTES) + 1)
    data["thumbnails"] = _base64(contents.random_order(), "<i4")
    return _fill(contents, len(photos), data, [])


def _fill(contents: MapContents, n_photos: int, data: dict[str, object], thumbnails: list[str]) -> str:
    heading = counted(len(contents), "photos")
    caption, quality = f"by {contents.embedding_type}", contents.quality()
    if n_photos < len(contents):
        caption += f"; this page shows a random sample of {n_photos:,}"
    return _part("map.html").fill(
        title=f"{heading}, {contents.embedding_type}",
        heading=heading,
        caption=caption,
        figures=f"Map quality: {quality} (docs/map.md of Crossfilter Inference explains these figures)."
        if quality
        else "",
        style=_part("page.css"),
        data=script_json(data),
        thumbnails=Html("\n".join(thumbnails)),
        script=_join_modules(),
    )


def _fitting(thumbnails: Mapping[int, bytes], size: int | Literal["auto"], room: int) -> dict[int, str]:
    """Encode the thumbnails that fit into so many bytes, in base64, by row."""
    lines = {}
    for row, jpeg in thumbnails.items():
        line = base64.b64encode(jpeg if size == "auto" else _shrunk(jpeg, size)).decode()
        room -= len(line) + 7  # with the end of the line, and the row in base64
        if room < 0:
            break
        lines[row] = line
    return lines


def _shrunk(jpeg: bytes, size: int) -> bytes:
    """Shrink a JPEG to so many pixels on the long side; a smaller one is left as it is."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        if max(image.size) <= size:
            return jpeg
        image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=1.0)  # the decoder reduces it
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


def choose_photos(random_order: list[int], settings: PageSettings = DEFAULTS) -> npt.NDArray[np.int64]:
    """Choose the photos that the page has room for: all, or a random sample.

    Parameters
    ----------
    random_order : list of int
        All photos.
    settings : PageSettings

    Returns
    -------
    array of shape (n_shown,), int64
        The chosen photos, in rising order.
    """
    return np.sort(np.array(random_order[: settings["max_megabytes"] * 1_000_000 // _PHOTO_BYTES], np.int64))


def _part(name: str) -> Html:
    return Html((_PARTS / name).read_text("utf-8").strip())


def _join_modules() -> Html:
    """Join the JavaScript modules into one script, without imports and exports.

    The names that a module defines must be unique among all modules.
    """
    modules = "\n\n".join(_part(name) for name in _MODULES)
    return Html(re.sub(r"^import\b[^;]*;\n|^export ", "", modules, flags=re.MULTILINE))


def _neighbours(
    contents: MapContents, photos: npt.NDArray[Any], on_page: npt.NDArray[np.int32], room: int
) -> dict[str, object]:
    """Return the neighbours that fit into so many bytes, as many for each photo."""
    n_neighbours = int(np.clip(room / (_NEIGHBOUR_BYTES * max(len(photos), 1)), 0, _MOST_NEIGHBOURS))
    return {
        "neighbours": _base64(on_page[contents.neighbours[photos, :n_neighbours]], "<i4"),
        "similarities": _base64(contents.similarity[photos, :n_neighbours], "<f4"),
    }


def _words(fits: Sequence[Fits], on_page: npt.NDArray[np.int32]) -> dict[str, object]:
    """Encode the words and the photos that fit them, those on the page; a negative count stands for none that fits."""
    photos = [on_page[fit.photos] for fit in fits]
    shown = [found[found >= 0] for found in photos]
    counts = [len(found) if fit.stand_out else -len(found) for found, fit in zip(shown, fits, strict=True)]
    return {
        "words": [fit.words for fit in fits],
        "fits": _base64(np.concatenate([np.empty(0, np.int32), *shown]), "<i4"),
        "nFits": _base64(counts, "<i4"),
    }


def _data(contents: MapContents, photos: npt.NDArray[Any]) -> dict[str, object]:
    folders: dict[str, int] = {}
    folder_of, names = [], []
    for row in photos:
        path = PurePosixPath(contents.paths[row])
        folder_of.append(folders.setdefault(str(path.parent), len(folders)))
        names.append(None if path.name == f"{contents.uuids[row]}.jpg" else path.name)
    places = np.column_stack([contents.latitude, contents.longitude])[photos]
    facts = _facts(contents, photos)
    land = {"land": base64.b64encode((_PARTS / "land.bin").read_bytes()).decode()} if "LATITUDE" in facts else {}
    return land | {
        "type": contents.embedding_type,
        "uuids": [contents.uuids[row] for row in photos],
        "names": names,
        "folders": list(folders),
        "folder": _base64(folder_of, "<i4"),
        "facts": facts,
        "missing": _base64(np.flatnonzero(contents.missing[photos]), "<i4"),
        "places": _base64(places, "<f4"),
        "quality": _base64((100 * contents.kept[photos]).round(), "u1"),
        "region": _base64(contents.region_of[photos], "<i4"),
        "regions": [
            {"name": printable(region.name), "place": [region.latitude, region.longitude]}
            for region in contents.regions
        ],
    }


def _facts(contents: MapContents, photos: npt.NDArray[Any]) -> dict[str, object]:
    """Encode the recorded facts; those that no photo has are left out."""
    encoded: dict[str, object] = {}
    for column, values in contents.facts.items():
        shown = [values[row] for row in photos]
        texts = {value: None for value in shown if isinstance(value, str)}
        if texts:
            index = {text: number for number, text in enumerate(texts)}
            encoded[column] = {"texts": [*texts], "index": _base64([index.get(value, -1) for value in shown], "<i4")}
        elif any(value is not None for value in shown):
            encoded[column] = _base64([math.nan if value is None else value for value in shown], "<f4")
    return encoded


def _base64(values: npt.ArrayLike, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
