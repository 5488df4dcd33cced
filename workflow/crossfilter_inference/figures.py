"""Pictures of the map: the whole sphere in an equal-area projection, with the photos' thumbnails.

References
----------
Mollweide's projection: J. P. Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from .connections import reading
from .database import Tables
from .files import read_tsv, write_bytes
from .map_settings import MAP_COLUMNS

WIDTH, HEIGHT = 2400, 1300  # pixels
_DPI = 150
_MAX_THUMBNAILS = 400  # more of them would be too small to tell apart
_REACH = 2.5  # sides of a thumbnail that it may stand away from its place
_PAPER, _SPHERE, _GRID = "#ffffff", "#f4f6f8", "#dde3e8"
_INK, _FRAME, _POINT, _LINE = "#39424b", "#aab4bd", "#5b7f9e", "#e4572e"


def draw_map(map_table: str, embeddings_folder: str, embedding_type: str, output: str) -> tuple[int, int]:
    """Draw `map.png`.

    A photo whose thumbnail finds room near its place is shown by it, with a line to the place; the others are
    points.

    Parameters
    ----------
    map_table : str
        Path of `map.tsv`.
    embeddings_folder : str
        Where the shard databases are, which hold the thumbnails.
    embedding_type : str
    output : str
        Path of the PNG, 2400 x 1300 pixels.

    Returns
    -------
    n_images, n_thumbnails : int
    """
    rows = [(uuid, float(lat), float(lon)) for uuid, lat, lon in read_tsv(map_table, MAP_COLUMNS)]
    uuids = [uuid for uuid, _, _ in rows]
    places = np.array([(lon, lat) for _, lat, lon in rows]).reshape(-1, 2)
    # At most so many, by lot, and almost the same ones when photos have come.
    lots = [hashlib.sha256(uuid.encode()).digest() for uuid in uuids]
    shown = sorted(range(len(rows)), key=lots.__getitem__)[:_MAX_THUMBNAILS]
    thumbnails = _read_thumbnails(embeddings_folder, embedding_type, {uuids[i] for i in shown})
    title = f"{len(rows):,} photos by {embedding_type}, UMAP on the sphere, equal-area projection"
    png, n_thumbnails = _draw(places, {i: thumbnails[uuids[i]] for i in shown if uuids[i] in thumbnails}, title)
    write_bytes(output, png)
    return len(rows), n_thumbnails


def place_thumbnails(
    anchors: np.ndarray, sizes: np.ndarray, inside: Callable[[np.ndarray], bool], reach: float, gap: float = 4
) -> dict[int, np.ndarray]:
    """Find room for rectangles near their anchors, without overlap.

    Parameters
    ----------
    anchors, sizes : arrays of shape (n, 2), float
        Pixels; `sizes` are width and height.
    inside : function
        From corners of shape (4, 2) to whether all of them are inside the picture.
    reach : float
        How far, in pixels, a rectangle's middle may be from its anchor.
    gap : float
        Pixels left free between rectangles.

    Returns
    -------
    dict
        The middle of each rectangle that found room, by its row.
    """
    steps = np.arange(0, reach, 6.0)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    offsets = np.concatenate(
        [[[0.0, 0.0]], *(step * np.column_stack([np.cos(turns), np.sin(turns)]) for step in steps[1:])]
    )
    placed: dict[int, np.ndarray] = {}
    taken_middles, taken_sizes = np.empty((0, 2)), np.empty((0, 2))
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        for offset in offsets:
            middle = anchor + offset
            free = np.abs(taken_middles - middle) >= (taken_sizes + size) / 2 + gap
            if free.any(axis=1).all() and inside(middle + size / 2 * _CORNERS):
                placed[index] = middle
                taken_middles = np.vstack([taken_middles, middle])
                taken_sizes = np.vstack([taken_sizes, size])
                break
    return placed


_CORNERS = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])


def _read_thumbnails(embeddings_folder: str, embedding_type: str, uuids: set[str]) -> dict[str, bytes]:
    table = Tables(embedding_type).thumbnails
    found: dict[str, bytes] = {}
    for path in sorted(Path(embeddings_folder).glob("[0-9]*.sqlite")):  # the newest shard wins
        with reading(path) as connection:
            rows = connection.execute(sa.select(table).where(table.c.UUID.in_(uuids)))
            found.update(rows.tuples().all())
    return found


def _draw(places: np.ndarray, thumbnails: dict[int, bytes], title: str) -> tuple[bytes, int]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps

    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=_PAPER)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.93), projection="mollweide", facecolor=_SPHERE)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    axes.spines["geo"].set_color(_GRID)
    figure.text(0.5, 0.965, title, ha="center", va="center", color=_INK, fontsize=13)
    canvas.draw()

    pixels = axes.transData.transform(np.radians(places))
    images = {i: Image.open(io.BytesIO(jpeg)).convert("RGB") for i, jpeg in thumbnails.items()}
    indices = list(images)
    scale = _thumbnail_scale(len(images))
    sizes = np.array([images[i].size for i in indices], float).reshape(-1, 2) * scale
    ellipse = axes.bbox

    def inside(corners: np.ndarray) -> bool:
        offset = (corners - (ellipse.x0 + ellipse.width / 2, ellipse.y0 + ellipse.height / 2)) * 2
        return bool(((offset / (ellipse.width, ellipse.height)) ** 2).sum(axis=1).max() < 1)

    placed = place_thumbnails(pixels[indices], sizes, inside, _REACH * 96 * scale)
    without = np.ones(len(pixels), bool)
    for row, middle in placed.items():
        anchor = pixels[indices[row]]
        without[indices[row]] = False
        if np.abs(anchor - middle).max() > 1:
            axes.plot(*np.vstack([anchor, middle]).T, color=_LINE, linewidth=0.9, transform=None, zorder=3)
            axes.scatter(*anchor, s=12, color=_LINE, linewidths=0, transform=None, zorder=3)
    size = np.clip(200 / np.sqrt(len(pixels)), 1, 14)
    axes.scatter(*pixels[without].T, s=size, color=_POINT, alpha=0.7, linewidths=0, transform=None, zorder=2)
    for row, middle in placed.items():
        image = images[indices[row]].resize(sizes[row].round().astype(int).tolist(), Image.Resampling.LANCZOS)
        image = ImageOps.expand(image.crop((1, 1, image.width - 1, image.height - 1)), 1, _FRAME)
        left, bottom = (middle - np.array(image.size) / 2).round()
        figure.figimage(np.asarray(image), left, bottom, zorder=4)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    return png.getvalue(), len(placed)


def _thumbnail_scale(n: int) -> float:
    """Size the thumbnails so that `n` of them cover about a third of the sphere, between 32 and 120 pixels."""
    area = np.pi / 4 * WIDTH * HEIGHT / 3
    side = np.clip(np.sqrt(area / max(n, 1)), 32, 120)
    return float(side / 96)
