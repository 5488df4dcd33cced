"""Decide whether two photos show the same picture: one re-encoded, resized or cropped by a few per cent.

The images are aligned by scale and offset, from coarse to fine. Then they are compared in blocks of 8 x 8 pixels. If a
single block differs by more than re-encoding explains, they are different pictures: a form with other handwriting, a
page of other text, the next photo of a burst. A picture with too little structure, such as a blank page, is never the
same picture as another.

The difference of a block is the root mean square of its differences in brightness, divided by its contrast plus the
noise of the pair. Of the demo photos and drawn pages, forms and screenshots, copies (JPEG of quality 30 to 95, WebP, 25
to 100% of the size, up to 5% cropped from each side) differ by 0.48 or less in their worst block, and others by 0.56
or more.

References
----------
B. D. Lucas and T. Kanade, "An iterative image registration technique with an application to stereo vision", IJCAI 1981.
"""

from functools import cache, lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import ThreadpoolController

SIDE = 768  # pixels on the long side; larger images are reduced
_MAX_DIFFERENCE = 0.5  # of a block
_MAX_COLOUR_DIFFERENCE = 24  # of 255, of Cb or Cr in a large block
_BLOCK = 8  # pixels
_MIN_NOISE, _MAX_NOISE = 2.5, 11.5  # grey levels; a JPEG of quality 30 has up to 11
_MIN_STRUCTURED = 12  # blocks
_MIN_CONTRAST = 8  # grey levels, standard deviation in a structured block
_COLOUR_BLOCKS = 32  # of colour along the long side
# Alignment: side in pixels, steps, how many alignments remain, and the least correlation of an alignment.
_START_SIDE, _N_STARTS = 32, 4
_MIN_START = 0.4  # copies have 0.92 or more
_LEVELS = ((48, 20, 4, 0.4), (96, 12, 2, 0.5), (192, 8, 1, 0.65), (384, 6, 1, 0.8), (SIDE, 8, 1, 0.8))
_CROPS = (0.03, 0.06, 0.1)  # shares of both sides that may be cut off, to start with
_MARGIN = 0.75  # pixels of the moving image: interpolation at the edge needs a neighbour
_MIN_OVERLAP = 0.8  # share of each image
_SAME_PIXEL = 0.5  # pixels; alignments that are closer to each other count as one
_MAX_STEP = 0.05  # share of a side
_RIDGE = 1e-4
_MAX_CROPPED = 1.2  # a longer side than the other image by more than this is one of a larger image

_Value = TypeVar("_Value", np.float32, np.bool_)
_Window = tuple[slice, slice]  # the rows and columns of an array that lie in both images


class _Warp(NamedTuple):
    """The point (x, y) of the fixed image is at (x_scale x + x_shift, ...) in the moving one; sides have length 1."""

    x_scale: float
    x_shift: float
    y_scale: float
    y_shift: float

    def inverse(self) -> "_Warp":
        return _Warp(1 / self.x_scale, -self.x_shift / self.x_scale, 1 / self.y_scale, -self.y_shift / self.y_scale)


def is_same_picture(first: Image.Image, second: Image.Image) -> bool:
    """Return whether two upright RGB images show the same picture."""
    with _threads().limit(limits=1, user_api="blas"):  # the arrays are small: more threads only wait for each other
        return _is_same_picture(first, second)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries


def _is_same_picture(first: Image.Image, second: Image.Image) -> bool:
    side = min(SIDE, max(first.size), max(second.size))
    # One that is only cropped keeps its pixels: resizing the other would take away its sharpness.
    moving, fixed = (
        _resized(image, side) if max(image.size) > _MAX_CROPPED * side else image for image in (first, second)
    )
    brightness = moving.convert("L").convert("F"), fixed.convert("L").convert("F")
    warp = _align(*brightness)
    if warp is None:
        return False
    difference, n_structured = _compare(*brightness, warp)
    return (
        n_structured >= _MIN_STRUCTURED
        and difference <= _MAX_DIFFERENCE
        and _colour_difference(moving, fixed, warp) <= _MAX_COLOUR_DIFFERENCE
    )


def _resized(image: Image.Image, side: int) -> Image.Image:
    """Reduce an image to `side` pixels on its long side; smaller ones stay as they are."""
    scale = min(1.0, side / max(image.size))
    width, height = (max(_BLOCK, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _align(moving: Image.Image, fixed: Image.Image) -> _Warp | None:
    """Align two images of brightness (mode F); None if they do not match."""
    small = (np.asarray(_resized(image, _START_SIDE), np.float64) for image in (moving, fixed))
    score_of_start = _correlations_of_starts(*small)
    best: list[int] = np.argsort(-score_of_start, kind="stable")[:_N_STARTS].tolist()
    if score_of_start[best[0]] < _MIN_START:
        return None
    warps = [_STARTS[number] for number in dict.fromkeys([*best, 0])]
    for side, n_steps, n_kept, least in _LEVELS:
        images = _resized(moving, side), np.asarray(_resized(fixed, side))
        refined = [(warp, _refine(*images, warp, n_steps)) for warp in warps]
        score = {warp: _correlation(*images, warp) for pair in refined for warp in pair}
        better = {max(pair, key=score.__getitem__) for pair in refined}
        warps = _distinct(sorted(better, key=lambda warp: (-score[warp], warp)), _SAME_PIXEL / side)[:n_kept]
        if score[warps[0]] < least:
            return None
        if side >= max(*moving.size, *fixed.size):
            break
    return warps[0]


def _starts() -> list[_Warp]:
    starts = [_Warp(1, 0, 1, 0)]
    for crop in _CROPS:
        for x in (0, 0.5, 1):
            for y in (0, 0.5, 1):
                window = _Warp(1 - crop, crop * x, 1 - crop, crop * y)
                starts += [window, window.inverse()]
    return starts


_STARTS = _starts()


def _correlations_of_starts(moving: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the brightness of two small images in each alignment of `_STARTS`, as `_correlation` does."""
    rows, columns = (_sampling(axis, fixed.shape[axis], moving.shape[axis]) for axis in (0, 1))
    moved = rows @ moving @ columns.transpose(0, 2, 1)
    window = rows.sum(axis=2)[:, :, None] * columns.sum(axis=2)[:, None]  # 1 inside both images, or 0
    first, second = (
        (values - ((values * window).sum((1, 2)) / window.sum((1, 2)))[:, None, None]) * window
        for values in (moved, fixed)
    )
    product = np.sqrt((first**2).sum((1, 2)) * (second**2).sum((1, 2)))
    return np.asarray((first * second).sum((1, 2)) / np.maximum(product, 1e-6))


@lru_cache(64)  # of half a MB each
def _sampling(axis: int, n_fixed: int, n_moving: int) -> NDArray[np.float64]:
    """Return the weights of linear interpolation along an axis: an array of shape (starts, n_fixed, n_moving)."""
    x_scale, x_shift, y_scale, y_shift = np.array(_STARTS).T[:, :, None]
    scale, shift = (y_scale, y_shift) if axis == 0 else (x_scale, x_shift)
    position = (scale * (np.arange(n_fixed) + 0.5) / n_fixed + shift) * n_moving
    inside = (position >= _MARGIN) & (position < n_moving - _MARGIN)
    distance = np.abs(position[:, :, None] - 0.5 - np.arange(n_moving))
    weights: NDArray[np.float64] = np.maximum(1 - distance, 0) * inside[:, :, None]
    return weights


def _distinct(warps: list[_Warp], least: float) -> list[_Warp]:
    """Leave out alignments that are nearly equal to an earlier one."""
    distinct: list[_Warp] = []
    for warp in warps:
        if all(max(abs(a - b) for a, b in zip(warp, other, strict=True)) >= least for other in distinct):
            distinct.append(warp)
    return distinct


def _warped(
    moving: Image.Image,
    fixed: NDArray[np.float32],
    warp: _Warp,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    margin: float = _MARGIN,
) -> tuple[NDArray[np.float32], _Window]:
    """Return the moving image in the grid of the fixed one, and the window that lies in both."""
    height, width = fixed.shape
    x_size, y_size = moving.size
    x_to, y_to = x_size / width, y_size / height
    coefficients = (warp.x_scale * x_to, 0, warp.x_shift * x_size, 0, warp.y_scale * y_to, warp.y_shift * y_size)
    moved = np.asarray(moving.transform((width, height), Image.Transform.AFFINE, coefficients, resample), np.float32)
    x = warp.x_scale * (np.arange(width) + 0.5) / width + warp.x_shift
    y = warp.y_scale * (np.arange(height) + 0.5) / height + warp.y_shift
    inside = _inside(y, margin / y_size), _inside(x, margin / x_size)
    return moved, inside


def _inside(position: NDArray[np.float64], margin: float) -> slice:
    """Return the part of rising positions that lies between 0 and 1."""
    return slice(*np.searchsorted(position, (margin, 1 - margin)).tolist())


def _correlation(moving: Image.Image, fixed: NDArray[np.float32], warp: _Warp) -> float:
    """Correlate the brightness of two aligned images; -1 if too little of them overlaps."""
    if not _overlaps(warp) or not _overlaps(warp.inverse()):
        return -1
    moved, inside = _warped(moving, fixed, warp)
    first, second = (values[inside].astype(np.float64).ravel() for values in (moved, fixed))
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(np.sqrt((first @ first) * (second @ second)), 1e-6))


def _overlaps(warp: _Warp) -> bool:
    """Return whether at least the required share of each side lies inside the other image."""
    sides = ((warp.x_shift, warp.x_scale), (warp.y_shift, warp.y_scale))
    return all(min(1, shift + scale) - max(0, shift) >= _MIN_OVERLAP * max(scale, 0.01) for shift, scale in sides)


def _refine(moving: Image.Image, fixed: NDArray[np.float32], warp: _Warp, n_steps: int) -> _Warp:
    """Improve an alignment by Gauss-Newton steps; brightness and contrast are fitted too."""
    height, width = fixed.shape
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    for _ in range(n_steps):
        if not _overlaps(warp) or not _overlaps(warp.inverse()):
            break
        moved, inside = _warped(moving, fixed, warp)
        y_slope, x_slope = _slope(moved)[inside], _slope(moved.T).T[inside]
        x_slope, y_slope = x_slope * (width / warp.x_scale), y_slope * (height / warp.y_scale)
        columns = (x_slope * x[:, inside[1]], x_slope, y_slope * y[inside[0]], y_slope, moved[inside], 1)
        slopes = np.empty((6, *x_slope.shape))
        for number, column in enumerate(columns):
            slopes[number] = column
        slopes = slopes.reshape(6, -1)
        square = slopes @ slopes.T
        square[np.diag_indices(6)] *= 1 + _RIDGE
        solution = np.linalg.lstsq(square, slopes @ fixed[inside].ravel(), rcond=None)[0]
        if solution[4] < 0.2:  # the contrast: these images do not match
            break
        step = np.clip(solution[:4] / solution[4], -_MAX_STEP, _MAX_STEP)
        warp = _Warp(*(np.array(warp) + step).tolist())
        if np.abs(step).max() < 0.05 / max(width, height):
            break
    return warp


def _slope(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the differences of rows, as `numpy.gradient` does."""
    slope = np.empty_like(values)
    slope[0], slope[-1] = values[1] - values[0], values[-1] - values[-2]
    slope[1:-1] = (values[2:] - values[:-2]) / 2
    return slope


def _compare(moving: Image.Image, fixed: Image.Image, warp: _Warp) -> tuple[float, int]:
    """Return the difference of the worst block, and the number of blocks with structure."""
    # Smoothing takes one more neighbour, and bicubic interpolation two.
    still = np.asarray(fixed)
    moved, inside = _warped(moving, still, warp, Image.Resampling.BICUBIC, margin=3)
    first, second = _smoothed(moved), _smoothed(still)
    first = _with_tones_of(first, second, inside)
    complete = _complete_blocks(inside, still.shape)
    if not complete.any():
        return np.inf, 0
    pairs = [_blocks(values)[complete].astype(np.float64) for values in (first, second)]
    residual = np.sqrt(((pairs[0] - pairs[1]) ** 2).mean(axis=1))
    contrast = np.maximum(pairs[0].std(axis=1), pairs[1].std(axis=1))
    is_structured = contrast >= _MIN_CONTRAST
    # A page with little text has noise only there.
    typical = max(np.quantile(residual, 0.75), np.median(residual[is_structured]) if is_structured.any() else 0)
    noise = min(_MIN_NOISE + 1.5 * float(typical), _MAX_NOISE)
    return float((residual / (contrast + noise)).max()), int(is_structured.sum())


def _smoothed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply a binomial filter of 3 x 3 pixels: images that were resized differ in sharpness."""
    for axis in (0, 1):
        padded = np.pad(values, [(1, 1) if axis == along else (0, 0) for along in (0, 1)], mode="edge")
        before, after = np.split(padded, [2], axis=axis)[1], np.split(padded, [-2], axis=axis)[0]
        values = ((before + 2 * values + after) / 4).astype(np.float32)
    return values


def _with_tones_of(first: NDArray[np.float32], second: NDArray[np.float32], inside: _Window) -> NDArray[np.float32]:
    """Adjust the brightness and contrast of an image to another; tones that are clipped there do not count."""
    x, y = (values[inside].astype(np.float64).ravel() for values in (first, second))
    columns = np.stack([np.ones_like(x), x])
    square = columns @ columns.T + _RIDGE * np.eye(2)
    target = y
    is_white, is_black = y > 251, y < 4
    is_extreme = bool(is_white.any() or is_black.any())
    for _ in range(5 if is_extreme else 1):
        offset, gain = np.linalg.solve(square, columns @ target)
        if is_extreme:
            expected = offset + gain * x
            target = np.where((is_white & (expected > y)) | (is_black & (expected < y)), expected, y)
    adjusted: NDArray[np.float32] = np.clip(offset + gain * first, 0, 255).astype(np.float32)
    return adjusted


def _blocks(values: NDArray[_Value], size: int = _BLOCK) -> NDArray[_Value]:
    """Cut an image into square blocks: an array of shape (rows, columns, pixels)."""
    rows, columns = (length // size for length in values.shape)
    cut = values[: rows * size, : columns * size].reshape(rows, size, columns, size)
    return cut.transpose(0, 2, 1, 3).reshape(rows, columns, -1)


def _complete_blocks(inside: _Window, shape: tuple[int, ...], size: int = _BLOCK) -> NDArray[np.bool_]:
    """Return which blocks of an image lie wholly inside the window."""
    mask = np.zeros(shape, np.bool_)
    mask[inside] = True
    return np.asarray(_blocks(mask, size).all(axis=2))


def _colour_difference(moving: Image.Image, fixed: Image.Image, warp: _Warp) -> float:
    """Return the largest difference of colour, in Cb or Cr, of large blocks of two aligned images."""
    size, differences = max(_BLOCK, max(fixed.size) // _COLOUR_BLOCKS), [0.0]
    colours = (image.convert("YCbCr").split()[1:] for image in (moving, fixed))
    for first, second in zip(*colours, strict=True):
        still = np.asarray(second.convert("F"))
        moved, inside = _warped(first.convert("F"), still, warp)
        difference = _blocks(moved - still, size).mean(axis=2)
        differences.append(float(np.abs(difference)[_complete_blocks(inside, still.shape, size)].max(initial=0)))
    return max(differences)
