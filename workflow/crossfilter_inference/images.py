"""One image file: its bytes become a square of pixels and a thumbnail, or a reason why not.

The square is the largest one in the middle of the upright image (EXIF orientation applied), or
the middle part of it where the encoder wants less, resized to what the encoder expects.
The original tool crops in the same way.
"""

import hashlib
import io
import os
import stat
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Pillow's own guard warns at one limit and raises at twice of it; ours is one limit, and a failure row.
Image.MAX_IMAGE_PIXELS = None
# Raster formats only: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000")
MAX_PIXELS = 2**28  # 268 megapixels, 805 MB when decoded: the largest phone cameras make 200
THUMBNAIL_SIDE = 96  # pixels on the long side
_THUMBNAIL_QUALITY = 80
# A JPEG may be decoded smaller as long as the square keeps this many times the side that the encoder wants, and this
# many pixels (smaller ones are decoded in no time). The embedding then moves by 1 - cosine of 5e-5 at most, against
# 3.4e-4 with 2 instead of 3 (12-megapixel photos, SigLIP2 base).
_REDUCED_SIDES, _REDUCED_PIXELS = 3, 672


class ImageError(Exception):
    """An image that cannot be embedded: a short `reason`, and the decoder's own words."""

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


def read_image_file(path: str) -> tuple[bytes, str]:
    """Read a file once.

    Returns
    -------
    data : bytes
    sha256 : str, 64 hexadecimal digits

    Raises
    ------
    ImageError
        "missing", "unreadable" or "empty".
    """
    try:
        # A FIFO that took the photo's place since the scan would block an ordinary open for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError("unreadable", "not a regular file")
            data = file.read()
    except FileNotFoundError as error:
        raise ImageError("missing", error.strerror) from None
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from None
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    return data, hashlib.sha256(data).hexdigest()


def load_image(data: bytes, preprocessing: Preprocessing) -> LoadedImage:
    """Decode one image file.

    Raises
    ------
    ImageError
        "not an image", "too large", "truncated" or "damaged".
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not an image", f"none of {', '.join(FORMATS)}") from None
    except Exception as error:  # a decoder may raise anything on hostile bytes; all of it means one thing
        raise _undecodable(error) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too large", f"{image.width} x {image.height} pixels, at most {MAX_PIXELS:,} in all")
    width, height = image.size
    try:
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
    except Exception as error:
        raise _undecodable(error) from error


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
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
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
    return ImageError("truncated" if "truncated" in message.lower() else "damaged", message)
