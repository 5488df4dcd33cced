"""Draw the map for print: the whole sphere in an equal-area projection, with thumbnails and names of regions.

References
----------
Hammer projection: J. P. Snyder, "Map Projections: A Working Manual", USGS Professional Paper 1395, 1987.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..map.contents import MapContents
from ..util.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

WIDTH, HEIGHT = 2400, 1340  # pixels
MOST_THUMBNAILS = 400  # more would be too small to recognise
_DPI = 150
_REACH = 2.5  # largest distance of a thumbnail from its position, in sides of a thumbnail
_PAPER, _SPHERE, _GRID = "#ffffff", "#f4f6f8", "#dde3e8"
_INK, _FRAME, _POINT, _LINE = "#39424b", "#aab4bd", "#5b7f9e", "#e4572e"
_LETTER = 0.7  # average width of a bold letter, as a share of the font size


def draw_figure(contents: MapContents, thumbnails: dict[int, bytes]) -> tuple[bytes, bytes, int]:
    """Draw the map as PNG and SVG.

    Thumbnails are drawn where there is room, with a line to the photo's position; all other photos are points.

    Parameters
    ----------
    contents : MapContents
    thumbnails : dict
        JPEG files by row of `contents`, in order of priority.

    Returns
    -------
    png : bytes
        2400 x 1340 pixels.
    svg : bytes
    n_thumbnails : int
        Number of thumbnails drawn.
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
    caption = f"{contents.caption()}. UMAP on the sphere, Hammer equal-area projection"
    figure.text(0.5, 0.022, caption, ha="center", va="center", color=_INK, fontsize=12)

    images = {row: Image.open(io.BytesIO(jpeg)).convert("RGB") for row, jpeg in thumbnails.items()}
    n_placed = _Canvas(figure, axes).draw(contents, images)
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": "map"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), svg.getvalue(), n_placed


def place_thumbnails(
    anchors: np.ndarray, sizes: np.ndarray, inside: Callable[[np.ndarray], bool], reach: float, gap: float = 4
) -> dict[int, np.ndarray]:
    """Place rectangles near their anchors, without overlap, in order of priority.

    Parameters
    ----------
    anchors, sizes : arrays of shape (n, 2), float
        Pixels; `sizes` holds width and height.
    inside : function
        Returns whether all corners, shape (4, 2), are inside the picture.
    reach : float
        Largest distance, in pixels, of a rectangle's centre from its anchor.
    gap : float
        Free pixels between rectangles.

    Returns
    -------
    dict
        Centre of each rectangle that was placed, by its row.
    """
    steps = np.arange(0, reach, 6.0)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    offsets = np.concatenate(
        [[[0.0, 0.0]], *(step * np.column_stack([np.cos(turns), np.sin(turns)]) for step in steps[1:])]
    )
    placed: dict[int, np.ndarray] = {}
    placed_centres, placed_sizes = np.empty((0, 2)), np.empty((0, 2))
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        for offset in offsets:
            centre = anchor + offset
            is_apart = np.abs(placed_centres - centre) >= (placed_sizes + size) / 2 + gap
            if is_apart.any(axis=1).all() and inside(centre + size / 2 * _CORNERS):
                placed[index] = centre
                placed_centres = np.vstack([placed_centres, centre])
                placed_sizes = np.vstack([placed_sizes, size])
                break
    return placed


_CORNERS = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])


class _Canvas:
    """A figure on which things are placed in pixels, whatever its format."""

    def __init__(self, figure: "Figure", axes: "Axes"):
        self._figure, self._axes = figure, axes
        self._inches = figure.dpi_scale_trans
        figure.draw_without_rendering()
        box = axes.bbox
        self._centre = np.array([box.x0 + box.width / 2, box.y0 + box.height / 2])
        self._size = np.array([box.width, box.height])

    def draw(self, contents: MapContents, images: dict[int, "Image"]) -> int:
        """Draw names, thumbnails and points; return the number of thumbnails drawn."""
        pixels = self._pixels(contents.latitude, contents.longitude)
        names = [(printable(region.name), region) for region in contents.regions if region.name]
        font_size = 15 if len(contents.regions) < 20 else 11
        em = font_size * _DPI / 72
        name_sizes = [(len(name) * _LETTER * em, 1.2 * em) for name, _ in names]
        name_positions = np.array([(region.latitude, region.longitude) for _, region in names]).reshape(-1, 2)
        rows, side = list(images), _thumbnail_side(len(images))
        image_sizes = [np.multiply(image.size, side / max(image.size)) for image in images.values()]
        sizes = np.array([*name_sizes, *image_sizes], float).reshape(-1, 2)
        anchors = np.vstack([self._pixels(*name_positions.T), pixels[rows]])
        # Names come first: thumbnails are placed around them.
        placed = place_thumbnails(anchors, sizes, self._is_inside, _REACH * side)

        is_point = np.ones(len(pixels), bool)
        for index, centre in placed.items():
            if index < len(names):
                self._draw_name(names[index][0], centre, font_size)
                continue
            row = rows[index - len(names)]
            is_point[row] = False
            self._draw_thumbnail(images[row], centre, sizes[index])
            if np.abs(pixels[row] - centre).max() > 1:
                self._draw_line(pixels[row], centre)
        size = np.clip(200 / np.sqrt(len(pixels)), 1, 14)
        x, y = (pixels[is_point] / _DPI).T
        self._axes.scatter(x, y, s=size, color=_POINT, alpha=0.7, linewidths=0, zorder=2, transform=self._inches)
        return sum(index >= len(names) for index in placed)

    def _pixels(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        return np.asarray(self._axes.transData.transform(np.radians(np.column_stack([longitude, latitude]))))

    def _is_inside(self, corners: np.ndarray) -> bool:
        return bool((((corners - self._centre) * 2 / self._size) ** 2).sum(axis=1).max() < 1)

    def _draw_name(self, name: str, centre: np.ndarray, font_size: float) -> None:
        from matplotlib.patheffects import withStroke

        x, y = centre / _DPI
        self._axes.text(
            x,
            y,
            name,
            fontsize=font_size,
            fontweight="bold",
            color=_INK,
            horizontalalignment="center",
            verticalalignment="center",
            path_effects=[withStroke(linewidth=3, foreground=_SPHERE)],
            parse_math=False,
            zorder=6,
            transform=self._inches,
        )

    def _draw_thumbnail(self, image: "Image", centre: np.ndarray, size: np.ndarray) -> None:
        from matplotlib.image import BboxImage
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import Bbox, TransformedBbox

        x, y = (centre - size / 2) / _DPI
        width, height = size / _DPI
        box = TransformedBbox(Bbox.from_bounds(x, y, width, height), self._inches)
        thumbnail = BboxImage(box, interpolation="antialiased", zorder=4)
        thumbnail.set_data(np.asarray(image))
        self._axes.add_artist(thumbnail)
        frame = Rectangle((x, y), width, height, fill=False, edgecolor=_FRAME, linewidth=0.7, zorder=5)
        frame.set_transform(self._inches)
        self._axes.add_artist(frame)

    def _draw_line(self, position: np.ndarray, centre: np.ndarray) -> None:
        x, y = np.vstack([position, centre]).T / _DPI
        self._axes.plot(x, y, color=_LINE, linewidth=0.9, zorder=3, transform=self._inches)
        self._axes.scatter(x[:1], y[:1], s=12, color=_LINE, linewidths=0, zorder=3, transform=self._inches)


def _thumbnail_side(n: int) -> float:
    """Return the long side, 32 to 120 pixels, with which `n` thumbnails cover about a third of the sphere."""
    area = np.pi / 4 * WIDTH * HEIGHT / 3
    return float(np.clip(np.sqrt(area / max(n, 1)), 32, 120))
