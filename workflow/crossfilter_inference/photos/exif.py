"""EXIF of a photo: how to turn it upright, and when it was taken.

To record another fact, add it to `Exif`, and a column of its name to `db/tables.py`.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags, Image

_MAX_BYTES = 2**20  # Python numbers take 25 times as many; the EXIF of a JPEG fits into 64 KB

# EXIF 2.3, tag 274: the operation that undoes each orientation.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Exif:
    """Orientation and capture time of an image, from its file.

    Attributes
    ----------
    orientation : int
        EXIF's number, 1 (upright) to 8.
    taken : str or None
        Time in ISO 8601 without a zone, as "2021-05-06T07:08:09".
    """

    orientation: int = 1
    taken: str | None = None

    @property
    def is_turned(self) -> bool:
        """Whether the stored image is not upright."""
        return self.orientation != 1

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright image is as wide as the stored one is high."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def reverses_columns(self) -> bool:
        """Whether the upright image counts the stored columns from the right."""
        return self.orientation in (2, 3, 7, 8)

    @property
    def reverses_rows(self) -> bool:
        """Whether the upright image counts the stored rows from the bottom."""
        return self.orientation in (3, 4, 6, 7)

    def upright(self, image: Image.Image) -> Image.Image:
        """Turn a stored image upright."""
        return image.transpose(_TRANSPOSE[self.orientation]) if self.is_turned else image


def read_exif(image: Image.Image) -> Exif:
    """Read the EXIF of a loaded image; an image whose EXIF is broken has none.

    Raises
    ------
    MemoryError
        If there is too little memory to read it: the orientation would be wrong.
    """
    first, details = _read_directories(image)
    orientation = next((number for number in _TRANSPOSE if number == first.get(ExifTags.Base.Orientation)), 1)
    return Exif(orientation, _time_taken({**first, **details}))


def without_xmp(image: Image.Image) -> None:
    """Drop the XMP of an opened file, before Pillow takes the orientation from it: viewers do not."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)


def _read_directories(image: Image.Image) -> tuple[dict[int, Any], dict[int, Any]]:
    """Read the first directory (IFD0), which alone has the orientation, and the Exif directory."""
    first: dict[int, Any] = {}
    try:
        without_xmp(image)
        exif = image.getexif()
        first = {ExifTags.Base.Orientation: exif.get(ExifTags.Base.Orientation)}
        if len(image.info.get("exif", b"")) > _MAX_BYTES:
            return first, {}
        first = dict(exif)
        return first, exif.get_ifd(ExifTags.IFD.Exif)
    except MemoryError:
        raise
    except Exception:  # hostile bytes may cause any error
        return first, {}


# Some programs write the date in their own spelling; fractions of a second and a zone may follow.
_TIME = re.compile(r"(\d{4})([:/-])(\d\d?)\2(\d\d?)[ T]+(\d\d?):(\d\d):(\d\d)(?![\d:])")
_FIRST_YEAR = 1900


def _time_taken(tags: dict[int, Any]) -> str | None:
    for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
        value = tags.get(tag)
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        match = _TIME.match(text.strip("\0 "))
        try:
            year, month, day, hour, minute, second = map(int, match.group(1, 3, 4, 5, 6, 7)) if match else (0,) * 6
            time = datetime(year, month, day, hour, minute, second)
        except ValueError:
            continue
        if _FIRST_YEAR <= time.year <= datetime.now().year + 1:
            return time.isoformat()
    return None
