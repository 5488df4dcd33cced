"""One image file: from bytes to a square of pixels and a thumbnail, or the reason why not.

The square is the largest one in the middle of the upright image (EXIF orientation applied), or the middle part of it
where the encoder takes less. It is resized to the side that the encoder takes. The original tool crops in the same way.
"""

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from .colours import profile_of, to_srgb
from .exif import Exif, read_exif, without_xmp
from .formats import (
    BYTES_PER_PIXEL,
    FORMATS,
    MAX_PIXELS,
    can_read_jxl,
    demands,
    is_jxl,
    open_image,
    without_surplus,
)
from .heic import zeroed_bytes
from .jpeg import decode_jpeg
from .png import is_png, pixels_alone
from .raw import can_read_raw, develop
from .signatures import broken_format, raw_format, unread_format

THUMBNAIL_SIDE = 192  # pixels on the long side
_THUMBNAIL_QUALITY = 80
_JPEG_QUALITY = 90  # of larger ones
# A JPEG may be decoded at a reduced size if the square keeps this many times the side that the encoder takes, and this
# many pixels (smaller images decode in no time). The embedding then moves by 1 - cosine of at most 5e-5, against
# 3.4e-4 with 2 instead of 3 (12-megapixel photos, SigLIP2 base).
_REDUCED_SIDES, _REDUCED_PIXELS = 3, 672


class ImageError(Exception):
    """An image that cannot be embedded: a short `reason`, and a message in the decoder's words or ours."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of the images of an encoder.

    Parameters
    ----------
    size : int
        Side of the square in pixels.
    resample : int
        Pillow's code of the resampling filter (2 bilinear, 3 bicubic, ...).
    mean, std : tuple of float, one per channel
        The network gets `(pixel / 255 - mean) / std`.
    crop : float in (0, 1]
        Part of the short side that the square takes.
    resize : int
        Side in pixels to which the square is resized, to keep the middle `size` pixels of it; 0 resizes it to `size`.
    """

    size: int
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    resize: int = 0

    @property
    def resized_side(self) -> int:
        """Side of the resized square in pixels."""
        return self.resize or self.size

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Read the value of `preprocessing` in `encoder.json`."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the value of `preprocessing` in `encoder.json`."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if not self.resize:  # the digests of encoders from before it existed must not change
            del fields["resize"]
        return fields


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image file.

    Attributes
    ----------
    pixels : array of shape (size, size, 3), uint8, RGB
    thumbnail : bytes
        A JPEG of at most 192 pixels on its long side.
    width, height : int
        Of the upright image, in pixels.
    exif : Exif
    """

    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes
    width: int
    height: int
    exif: Exif

    @property
    def facts(self) -> dict[str, Any]:
        """Facts to record, by column of `<TYPE>_IMAGES` in lower case: width, height, and all of the EXIF."""
        return {"width": self.width, "height": self.height, **asdict(self.exif)}


def read_image_file(path: str, max_pixels: int = MAX_PIXELS) -> tuple[bytes, str]:
    """Read a file once, unless it is larger than any image of `max_pixels`.

    Returns
    -------
    data : bytes
    sha256 : str, 64 hexadecimal digits

    Raises
    ------
    ImageError
        "missing", "unreadable", "empty", "too large" or "out of memory".
    """
    try:
        # If a FIFO has replaced the photo since the scan, an ordinary open would block for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", "not a regular file")
            if status.st_size > BYTES_PER_PIXEL * max(max_pixels, MAX_PIXELS):
                raise _too_large(f"{status.st_size:,} bytes", max_pixels)
            data = file.read()
    except FileNotFoundError as error:
        raise missing(error) from None
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from None
    except MemoryError as error:
        raise _undecodable(error) from None
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    return data, hashlib.sha256(data).hexdigest()


def load_image(data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Decode an image file; of an animation, the first frame.

    Parameters
    ----------
    data : bytes
        The file.
    preprocessing : Preprocessing
    max_pixels : int
        A file whose headers ask for more work than an image of this many pixels is not decoded.

    Raises
    ------
    ImageError
        "not an image", "too large", "damaged" or "out of memory".
    """
    with _reporting_errors(data):
        image, (width, height), exif, profile = _decode(data, preprocessing, max_pixels)
        square = to_srgb(_centre_square(image, width, height, exif, preprocessing), profile)
        if exif.swaps_sides:
            width, height = height, width
        margin = (preprocessing.resized_side - preprocessing.size) // 2
        middle = (margin, margin, margin + preprocessing.size, margin + preprocessing.size)
        return LoadedImage(
            pixels=np.asarray(exif.upright(square).crop(middle)),
            thumbnail=_thumbnail(image, exif, profile),
            width=width,
            height=height,
            exif=exif,
        )


def load_exif(data: bytes, max_pixels: int = MAX_PIXELS) -> Exif:
    """Read the EXIF of an image file, without its pixels if its format allows that.

    Raises
    ------
    ImageError
        As `load_image`.
    """
    with _reporting_errors(data):
        return _open(data, max_pixels)[2]()


def load_whole(data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to an upright RGB image of at most `side` pixels on its long side.

    Raises
    ------
    ImageError
        As `load_image`.
    """
    with _reporting_errors(data):
        whole = Preprocessing(side, Image.Resampling.BICUBIC, (), ())
        image, _, exif, profile = _decode(data, whole, max_pixels)
        scale = min(1, side / max(image.size))
        width, height = (max(1, round(length * scale)) for length in image.size)
        return exif.upright(to_srgb(image.resize((width, height), Image.Resampling.BICUBIC), profile))


def load_jpeg(data: bytes, side: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """Convert an image file to an upright sRGB JPEG file of at most `side` pixels on its long side.

    Raises
    ------
    ImageError
        As `load_image`.
    """
    file = io.BytesIO()
    load_whole(data, side, max_pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


@contextmanager
def _reporting_errors(data: bytes) -> Iterator[None]:
    """Name what is wrong with a file that cannot be decoded."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        unread = _unread_format(data)
        if not unread and (name := broken_format(data)):
            raise ImageError("damaged", f"the headers of this {name} cannot be read") from None
        raise ImageError("not an image", unread or f"not one of {', '.join(FORMATS)}") from None
    except Exception as error:  # hostile bytes may cause any error in a decoder; all of them mean the same
        if isinstance(error, ValueError) and (rare := _unread_format(data)):
            raise ImageError("not an image", rare) from error
        raise _undecodable(error) from error


def _unread_format(data: bytes) -> str:
    """Name a format that is not decoded here, and what to do; empty if it is not recognised."""
    is_read = can_read_jxl() if is_jxl(data) else raw_format(data) and can_read_raw()
    return "" if is_read else unread_format(data)


def missing(error: OSError) -> ImageError:
    """Make the error for a file that does not exist."""
    return ImageError("missing", error.strerror or str(error))


def _decode(
    data: bytes, preprocessing: Preprocessing, max_pixels: int
) -> tuple[Image.Image, tuple[int, int], Exif, bytes | None]:
    """Decode a file; a JPEG at 1/2, 1/4 or 1/8 of its size if the square stays large enough.

    Returns
    -------
    image : PIL.Image.Image
        As stored, not upright, in the colours of `profile` and one of the modes L, RGB, CMYK and LAB.
    size : tuple of int
        Width and height that are stored.
    exif : Exif
    profile : bytes or None
    """
    file, data, exif = _open(data, max_pixels)
    size = file.size
    if file.format in ("JPEG", "MPO"):
        least = max(_REDUCED_SIDES * preprocessing.resized_side, _REDUCED_PIXELS)
        scale = min(size) * preprocessing.crop / least
        part = next((part for part in (8, 4, 2) if scale >= part), 1)
        image = decode_jpeg(data, file.mode, (-(-file.width // part), -(-file.height // part)))
    else:
        if file.format == "HEIF" and (n_bytes := zeroed_bytes(data)):
            raise ImageError("damaged", f"{n_bytes:,} bytes of the coded image are zeros")
        file.load()
        image = file
    return _opaque(image), size, exif(), profile_of(file)


def _open(data: bytes, max_pixels: int) -> tuple[Image.Image, bytes, Callable[[], Exif]]:
    """Open a file, and check what its headers ask for.

    Returns
    -------
    file : PIL.Image.Image
    data : bytes
        What is to be decoded.
    exif : function
        Reads the EXIF; some formats have it after the pixels.
    """
    exif = None
    if raw := raw_format(data):
        if not can_read_raw():
            raise ImageError("not an image", raw)
        data, exif = develop(data)
    data = pixels_alone(data) if is_png(data) else without_surplus(data)
    file = open_image(data)
    without_xmp(file)
    for n_pixels, description in demands(file, data):
        if n_pixels > max_pixels:
            raise _too_large(description, max_pixels)
    return file, data, lambda: exif or read_exif(file)


def _centre_square(
    image: Image.Image, width: int, height: int, exif: Exif, preprocessing: Preprocessing
) -> Image.Image:
    """Cut the square out of a stored image of `width` x `height` pixels, decoded at that size or a reduced one."""
    side = max(1, round(min(width, height) * preprocessing.crop))
    # In the upright image, the margin on the left and on the top is the rounded-down half.
    left = (width - side + exif.reverses_columns) // 2
    top = (height - side + exif.reverses_rows) // 2
    scale = round(width / image.width)
    square = np.array([left, top, left + side, top + side]) / scale
    # Crop, then resize: resize(box=) alone would let pixels outside the square leak in at its edges. The box corrects
    # the fraction of a pixel by which whole pixels of a reduced image miss the square.
    x0, y0 = (int(side) for side in np.floor(square[:2]))
    x1, y1 = (int(side) for side in np.ceil(square[2:]))
    box = (square - [x0, y0, x0, y0]).tolist()
    return image.crop((x0, y0, x1, y1)).resize((preprocessing.resized_side,) * 2, preprocessing.resample, box)


def _opaque(image: Image.Image) -> Image.Image:
    """Convert to one of the modes L, RGB, CMYK and LAB, without changing colours."""
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    mode = "L" if image.mode in ("1", "LA") else "RGB"
    if image.has_transparency_data:  # show transparent pixels as white, as viewers do
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert(mode)


def _thumbnail(image: Image.Image, exif: Exif, profile: bytes | None) -> bytes:
    scale = min(1, THUMBNAIL_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = to_srgb(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0), profile)
    thumbnail = exif.upright(small)
    thumbnail.info = {}  # Pillow would save the comment of the photo, too
    jpeg = io.BytesIO()
    thumbnail.save(jpeg, "JPEG", quality=_THUMBNAIL_QUALITY)
    return jpeg.getvalue()


def _undecodable(error: Exception) -> ImageError:
    message = " ".join(str(error).split()) or type(error).__name__
    if "libjxl" in message:  # it asks users to build it anew
        message = "libjxl cannot decode it"
    # -9 is Pillow's code for too little memory; it spells the code out, except for libtiff.
    if isinstance(error, MemoryError) or re.search(r"out of memory|^decoder error -9$", message, re.IGNORECASE):
        return ImageError("out of memory", message)
    return ImageError("damaged", message)


def _too_large(what: str, max_pixels: int) -> ImageError:
    return ImageError("too large", f"{what}, more than the {max_pixels / 1e6:.6g} megapixels of max_megapixels")
