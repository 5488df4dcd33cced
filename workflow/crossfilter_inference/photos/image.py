"""One image file: its bytes become a square of pixels and a thumbnail, or a reason why not.

The square is the largest one in the middle of the upright image (EXIF orientation applied), or the middle part of it
where the encoder wants less, resized to what the encoder expects. The original tool crops in the same way.
"""

import hashlib
import io
import math
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Pillow's own guard warns at one limit and raises at twice of it, and knows pixels only; ours ends in a failure row.
Image.MAX_IMAGE_PIXELS = None
# Raster formats only: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000")
MAX_PIXELS = 2**28  # 268 megapixels, up to 4.3 GB while they are decoded: the largest phone cameras make 200
_BYTES_PER_PIXEL = 8  # of 16-bit RGBA, not compressed: no file need be larger
_MOST_EXIF = 2**20  # bytes, of which Python's numbers take 25 times as many; a JPEG's fits in 64 KB
THUMBNAIL_SIDE = 96  # pixels on the long side
_THUMBNAIL_QUALITY = 80
# A JPEG may be decoded smaller as long as the square keeps this many times the side that the encoder wants, and this
# many pixels (smaller ones are decoded in no time). The embedding then moves by 1 - cosine of 5e-5 at most, against
# 3.4e-4 with 2 instead of 3 (12-megapixel photos, SigLIP2 base).
_REDUCED_SIDES, _REDUCED_PIXELS = 3, 672


class ImageError(Exception):
    """An image that cannot be embedded: a short `reason`, and what is wrong in the decoder's words or ours."""

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


@dataclass(frozen=True)
class Preprocessing:
    """How an encoder wants its images.

    Parameters
    ----------
    size : int
        Side of the square in pixels.
    resample : int
        Pillow's number of the filter (2 bilinear, 3 bicubic, ...).
    mean, std : tuple of float, one per channel
        The encoder sees `(pixel / 255 - mean) / std`.
    crop : float in (0, 1]
        Part of the short side that the square takes.
    """

    size: int
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0

    @classmethod
    def from_json(cls, values: dict) -> "Preprocessing":
        """Read it out of `encoder.json`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_json(self) -> dict:
        """Return what stands in `encoder.json`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class LoadedImage:
    """What one file gave.

    `pixels` is an array of shape (size, size, 3), uint8, RGB; `thumbnail` a JPEG of at most 96 pixels on
    its long side; `width` and `height` are of the upright image, in pixels; `is_turned` tells whether EXIF had it
    turned to be upright; `taken` is EXIF's time as ISO 8601 without a zone, or None.
    """

    pixels: np.ndarray
    thumbnail: bytes
    width: int
    height: int
    is_turned: bool
    taken: str | None


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
        # A FIFO that took the photo's place since the scan would block an ordinary open for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", "not a regular file")
            if status.st_size > _BYTES_PER_PIXEL * max(max_pixels, MAX_PIXELS):
                raise _too_large(f"{status.st_size:,} bytes", max_pixels)
            data = file.read()
    except FileNotFoundError as error:
        raise ImageError("missing", error.strerror) from None
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from None
    except MemoryError as error:
        raise _undecodable(error) from None
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    return data, hashlib.sha256(data).hexdigest()


def load_image(data: bytes, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """Decode one image file; of an animation, its first frame.

    Parameters
    ----------
    data : bytes
    preprocessing : Preprocessing
    max_pixels : int
        What would take more than an image of so many pixels does, by its headers, is not decoded.

    Raises
    ------
    ImageError
        "not an image", "too large", "truncated", "damaged" or "out of memory".
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        for n_pixels, claim in _claims(image, data):
            if n_pixels > max_pixels:
                raise _too_large(claim, max_pixels)
        _reduce(image, preprocessing)
        image.load()
        exif = _exif(image)
        orientation = exif.get(ExifTags.Base.Orientation)
        image = _rgb(image)
        return LoadedImage(
            pixels=np.asarray(_upright(_centre_square(image, width, height, orientation, preprocessing), orientation)),
            thumbnail=_thumbnail(image, orientation),
            width=height if orientation in _ON_ITS_SIDE else width,
            height=width if orientation in _ON_ITS_SIDE else height,
            is_turned=orientation in _UPRIGHT,
            taken=_taken(exif),
        )
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image", f"none of {', '.join(FORMATS)}") from None
    except Exception as error:  # a decoder may raise anything on hostile bytes; all of it means one thing
        raise _undecodable(error) from error


def _claims(image: Image.Image, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield what a file wants decoded: the number of pixels that take as much, and words for it.

    Decoders allocate by more headers than the image's size. A pixel stands for 16 bytes, or 30 nanoseconds.
    """
    width, height = image.size
    size = f"{width} x {height} pixels"
    yield width * height, size
    if image.format == "TIFF":  # libtiff decodes whole tiles, however little of them is in the image
        tile = [image.tag_v2.get(tag) for tag in (322, 323)]
        if all(isinstance(side, int) for side in tile):
            yield math.prod(tile), "tiles of {} x {} pixels".format(*tile)
    elif image.format in ("JPEG", "MPO"):  # each scan goes over all pixels, and may be of 10 bytes
        n_scans = len(re.findall(rb"\xff\xda\0", data))
        yield width * height * n_scans // 64, f"{n_scans} scans of {size}"
    elif image.format == "JPEG2000":  # OpenJPEG keeps 1 KB per component of a tile, and some KB per precinct
        for siz in re.finditer(rb"\xff\x4f\xff\x51", data):
            right, bottom, _, _, *tile, left, top, n_components = struct.unpack_from(">8IH", data, siz.end() + 4)
            n_tiles = min(-((left - right) // tile[0]) * -((top - bottom) // tile[1]), 2**16)
            yield n_tiles * (n_components + 5) * 64, f"{n_tiles} tiles of {n_components} components"
        yield width * height * 512 // (area := _smallest_block(data)), f"{size} in blocks of {area}"


def _smallest_block(data: bytes) -> int:
    """Return the area in pixels of the smallest code-block or precinct in a JPEG 2000 file, or 512 if that is less."""
    area = 512
    for marker in re.finditer(rb"\xff[\x52\x53]\0", data):  # COD and COC, ISO 15444-1 A.6; by chance among the pixels
        start = marker.start()
        style, levels = (start + 4, start + 9) if data[start + 1] == 0x52 else (start + 5, start + 6)
        block = data[levels : start + 2 + data[start + 3]] if start + 3 < len(data) else b""
        if len(block) >= 5 and len(block) == 5 + (data[style] & 1) * (block[0] + 1):
            area = min(area, 16 << block[1] + block[2], *(1 << (side & 15) + (side >> 4) for side in block[5:]))
    return area


# EXIF 2.3, tag 274: what undoes each orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_FROM_THE_RIGHT, _FROM_BELOW = (2, 3, 7, 8), (3, 4, 6, 7)  # how the upright image counts the file's columns and rows


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _exif(image: Image.Image) -> dict[int, object]:
    """Read orientation and times; an image whose EXIF cannot be read has none."""
    try:
        exif = image.getexif()
        if len(image.info.get("exif", b"")) > _MOST_EXIF:
            return {ExifTags.Base.Orientation: exif.get(ExifTags.Base.Orientation)}
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except MemoryError:  # that it would look the other way round is not its own fault
        raise
    except Exception:  # as with the pixels: hostile bytes, any error
        return {}


def _reduce(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size where the square stays large enough."""
    least = max(_REDUCED_SIDES * preprocessing.size, _REDUCED_PIXELS)
    scale = int(min(image.size) * preprocessing.crop / least)
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))


def _centre_square(
    image: Image.Image, width: int, height: int, orientation: object, preprocessing: Preprocessing
) -> Image.Image:
    """Cut the square out of an image of `width` x `height` pixels, decoded at that size or a reduced one."""
    side = max(1, round(min(width, height) * preprocessing.crop))
    # The upright image is cut at the rounded-down half of what is left over.
    left = (width - side + (orientation in _FROM_THE_RIGHT)) // 2
    top = (height - side + (orientation in _FROM_BELOW)) // 2
    scale = round(width / image.width)
    square = np.array([left, top, left + side, top + side]) / scale
    # Crop, then resize: resize(box=) alone would let pixels from outside the square leak in at its edges. The box is
    # for the part of a pixel by which whole pixels of a reduced image miss the square.
    crop = [*np.floor(square[:2]).astype(int).tolist(), *np.ceil(square[2:]).astype(int).tolist()]
    box = (square - [*crop[:2], *crop[:2]]).tolist()
    return image.crop(crop).resize((preprocessing.size,) * 2, preprocessing.resample, box)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:  # what is transparent is shown on white, as a viewer does
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _thumbnail(image: Image.Image, orientation: object) -> bytes:
    scale = min(1, THUMBNAIL_SIDE / max(image.size))
    size = [max(1, round(side * scale)) for side in image.size]
    thumbnail = _upright(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0), orientation)
    jpeg = io.BytesIO()
    thumbnail.save(jpeg, "JPEG", quality=_THUMBNAIL_QUALITY)
    return jpeg.getvalue()


def _taken(exif: dict[int, object]) -> str | None:
    for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
        try:
            return datetime.strptime(str(exif.get(tag)).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:
            continue
    return None


def _undecodable(error: Exception) -> ImageError:
    message = " ".join(str(error).split()) or type(error).__name__
    # Pillow's code for want of memory is -9, which it spells out but for libtiff.
    if isinstance(error, MemoryError) or re.search(r"out of memory|^decoder error -9$", message, re.IGNORECASE):
        return ImageError("out of memory", message)
    return ImageError("truncated" if "truncated" in message.lower() else "damaged", message)


def _too_large(what: str, max_pixels: int) -> ImageError:
    return ImageError("too large", f"{what}, more than the {max_pixels / 1e6:.6g} megapixels of max_megapixels")
