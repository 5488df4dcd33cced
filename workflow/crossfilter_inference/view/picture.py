"""Pictures of the map for print: the whole sphere in an equal-area projection, with thumbnails and names of regions.

References
----------
Hammer's projection: J. P. Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987.
"""

import io
from collections.abc import Callable

import numpy as np

from ..map.contents import MapContents
from ..util.text import printable

WIDTH, HEIGHT = 2400, 1340  # pixels
MOST_THUMBNAILS = 400  # more of them would be too small to tell apart
_DPI = 150
_REACH = 2.5  # sides of a thumbnail that it may stand away from its place
_PAPER, _SPHERE, _GRID = "#ffffff", "#f4f6f8", "#dde3e8"
_INK, _FRAME, _POINT, _LINE = "#39424b", "#aab4bd", "#5b7f9e", "#e4572e"
_LETTER = 0.6  # of its height: width of a letter, on average


def draw_figure(contents: MapContents, thumbnails: dict[int, bytes]) -> tuple[bytes, bytes, int]:
    """Draw the map.

    A photo whose thumbnail finds room near its place is shown by it, with a line to the place; the others are
    points.

    Parameters
    ----------
    contents : MapContents
    thumbnails : dict
        JPEG files by row of `contents`; the first ones find room first.

    Returns
    -------
    png : bytes
        2400 x 1340 pixels.
    svg : bytes
    n_thumbnails : int
        Those that found room.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=_PAPER)
    axes = figure.add_axes((0.01, 0.05, 0.98, 0.94), projection="hammer", facecolor=_SPHERE)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    axes.spines["geo"].set_color(_GRID)
    caption = f"{contents.caption()}. UMAP on the sphere, Hammer's equal-area projection"
    figure.text(0.5, 0.022, caption, ha="center", va="center", color=_INK, fontsize=12)

    images = {row: Image.open(io.BytesIO(jpeg)).convert("RGB") for row, jpeg in thumbnails.items()}
    n_placed = _Sheet(figure, axes).fill(contents, images)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": "map"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), svg.getvalue(), n_placed


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


class _Sheet:
    """A figure on which things are put by pixels, whatever it is printed as."""

    def __init__(self, figure: object, axes: object):
        self._figure, self._axes = figure, axes
        self._inches = {"transform": figure.dpi_scale_trans}
        figure.draw_without_rendering()
        box = axes.bbox
        self._middle, self._size = np.array([box.x0 + box.width / 2, box.y0 + box.height / 2]), np.array(box.size)

    def fill(self, contents: MapContents, images: dict[int, object]) -> int:
        pixels = self._pixels(contents.latitude, contents.longitude)
        names = [(printable(region.name), region) for region in contents.regions if region.name]
        points = 15 if len(contents.regions) < 20 else 11
        height = points * _DPI / 72
        boxes = [(len(name) * _LETTER * height, 1.2 * height) for name, _ in names]
        middles = np.array([(region.latitude, region.longitude) for _, region in names]).reshape(-1, 2)
        rows, scale = list(images), _thumbnail_scale(len(images))
        sizes = np.array([*boxes, *(np.array(images[row].size) * scale for row in rows)], float).reshape(-1, 2)
        anchors = np.vstack([self._pixels(*middles.T), pixels[rows]])
        # A name takes its room first, and the photos stand around it.
        placed = place_thumbnails(anchors, sizes, self._is_inside, _REACH * 96 * scale)

        without = np.ones(len(pixels), bool)
        for number, middle in placed.items():
            if number < len(names):
                self._write(names[number][0], middle, points)
                continue
            row = rows[number - len(names)]
            without[row] = False
            self._put(images[row], middle, sizes[number])
            if np.abs(pixels[row] - middle).max() > 1:
                line = np.vstack([pixels[row], middle]).T / _DPI
                self._axes.plot(*line, color=_LINE, linewidth=0.9, zorder=3, **self._inches)
                self._axes.scatter(*line[:, 0], s=12, color=_LINE, linewidths=0, zorder=3, **self._inches)
        size = np.clip(200 / np.sqrt(len(pixels)), 1, 14)
        self._axes.scatter(
            *(pixels[without] / _DPI).T, s=size, color=_POINT, alpha=0.7, linewidths=0, zorder=2, **self._inches
        )
        return sum(number >= len(names) for number in placed)

    def _pixels(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        return self._axes.transData.transform(np.radians(np.column_stack([longitude, latitude])))

    def _is_inside(self, corners: np.ndarray) -> bool:
        return bool((((corners - self._middle) * 2 / self._size) ** 2).sum(axis=1).max() < 1)

    def _write(self, name: str, middle: np.ndarray, points: float) -> None:
        from matplotlib.patheffects import withStroke

        halo = [withStroke(linewidth=3, foreground=_SPHERE)]
        style = {"fontsize": points, "fontweight": "bold", "color": _INK, "ha": "center", "va": "center"}
        self._axes.text(*middle / _DPI, name, path_effects=halo, zorder=6, parse_math=False, **style, **self._inches)

    def _put(self, image: object, middle: np.ndarray, size: np.ndarray) -> None:
        from matplotlib.image import BboxImage
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import Bbox, TransformedBbox

        corner = (middle - size / 2) / _DPI
        box = Bbox([corner, corner + size / _DPI])
        shown = BboxImage(TransformedBbox(box, self._figure.dpi_scale_trans), interpolation="antialiased", zorder=4)
        shown.set_data(np.asarray(image))
        self._axes.add_artist(shown)
        frame = {"fill": False, "edgecolor": _FRAME, "linewidth": 0.7, "zorder": 5}
        self._axes.add_artist(Rectangle(corner, *size / _DPI, **frame, **self._inches))


def _thumbnail_scale(n: int) -> float:
    """Size the thumbnails so that `n` of them cover about a third of the sphere, between 32 and 120 pixels."""
    area = np.pi / 4 * WIDTH * HEIGHT / 3
    side = np.clip(np.sqrt(area / max(n, 1)), 32, 120)
    return float(side / 96)
