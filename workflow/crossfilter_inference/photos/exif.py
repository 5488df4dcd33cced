"""EXIF of a photo: how to turn it upright, when and where it was taken, and by which camera.

To record another fact, add it to `Exif`, and a column of its name to `db/tables.py`. The tags are those of EXIF 2.32
(CIPA DC-008); odd values are read as exiftool reads them.
"""

import math
import re
from collections.abc import Mapping
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
    """What the EXIF of an image records; None is unknown.

    Attributes
    ----------
    orientation : int
        EXIF's number, 1 (upright) to 8.
    taken : str or None
        Local time in ISO 8601 without a zone, as "2021-05-06T07:08:09".
    taken_offset : str or None
        Offset of that time from UTC, as "+02:00".
    latitude, longitude : float or None
        Degrees, north and east positive, in [-90, 90] and [-180, 180], rounded to 7 decimals (a centimetre).
    altitude : float or None
        Metres above sea level, rounded to 3 decimals.
    camera : str or None
        Make and model.
    """

    orientation: int = 1
    taken: str | None = None
    taken_offset: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude: float | None = None
    camera: str | None = None

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
    directories = _read_directories(image)
    number = directories[0].get(ExifTags.Base.Orientation)
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        number = 1  # the decoder turns it, ISO 18181-1
    return _exif(*directories, next((orientation for orientation in _TRANSPOSE if orientation == number), 1))


def exif_of_tiff(data: bytes, orientation: int) -> Exif:
    """Read the EXIF of a file with the directories of a TIFF, such as most camera RAW; its orientation is given."""
    exif = Image.Exif()
    try:
        exif.load(data)
        first = dict(exif)
    except MemoryError:
        raise
    except Exception:  # hostile bytes may cause any error
        return Exif(orientation)
    return _exif(first, _directory(exif, ExifTags.IFD.Exif), _directory(exif, ExifTags.IFD.GPSInfo), orientation)


def _exif(first: dict[int, Any], details: dict[int, Any], gps: dict[int, Any], orientation: int) -> Exif:
    taken, offset = _time_taken({**first, **details})
    return Exif(orientation, taken, offset, *_position(gps), _altitude(gps), _camera(first))


def without_xmp(image: Image.Image) -> None:
    """Drop the XMP of an opened file, before Pillow takes the orientation from it: viewers do not."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)


def _read_directories(image: Image.Image) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """Read the first directory (IFD0), which alone has the orientation, the Exif directory and that of GPS."""
    first: dict[int, Any] = {}
    try:
        without_xmp(image)
        exif = image.getexif()
        first = {ExifTags.Base.Orientation: exif.get(ExifTags.Base.Orientation)}
        if len(image.info.get("exif", b"")) > _MAX_BYTES:
            return first, {}, {}
        first = dict(exif)
        return first, _directory(exif, ExifTags.IFD.Exif), _directory(exif, ExifTags.IFD.GPSInfo)
    except MemoryError:
        raise
    except Exception:  # hostile bytes may cause any error
        return first, {}, {}


def _directory(exif: Image.Exif, tag: int) -> dict[int, Any]:
    try:
        return exif.get_ifd(tag)
    except MemoryError:
        raise
    except Exception:  # hostile bytes may cause any error
        return {}


# Some programs write the date in their own spelling; fractions of a second and a zone may follow.
_TIME = re.compile(
    r"(\d{4})([:/.-])(\d\d?)\2(\d\d?)[ T]+(\d\d?):(\d\d)(?::(\d\d))?(?![\d:])(?:[.,]\d+)?\s*(Z|[+-]\d\d:?\d\d)?"
)
_FIRST_YEAR = 1900
_TIMES = (  # in order of preference, with the tag of the offset
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime),
)


def _time_taken(tags: Mapping[int, Any]) -> tuple[str | None, str | None]:
    for tag, offset_tag in _TIMES:
        time, offset = read_time(_text(tags.get(tag)))
        if time:
            return time, offset or _offset(_text(tags.get(offset_tag)))
    return None, None


def read_time(text: str) -> tuple[str | None, str | None]:
    """Read a text that begins with a time; return the time and its offset from UTC as of `Exif`."""
    match = _TIME.match(text)
    time = possible_time(*match.group(1, 3, 4, 5, 6), match[7] or "00") if match else None
    return (time, _offset(match[8] or "")) if match and time else (None, None)


def possible_time(*numbers: str) -> str | None:
    """Write year, month, day, hour, minute and second as ISO 8601; None if there is no such time, or not yet."""
    try:
        time = datetime(*map(int, numbers))  # type: ignore[arg-type]
    except ValueError:
        return None
    return time.isoformat() if _FIRST_YEAR <= time.year <= datetime.now().year + 1 else None


def _offset(text: str) -> str | None:
    if text == "Z":
        return "+00:00"
    match = re.fullmatch(r"([+-])(\d\d):?([0-5]\d)", text)
    return f"{match[1]}{match[2]}:{match[3]}" if match and int(match[2]) <= 14 else None


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    """Return latitude and longitude; neither if one of them is missing or impossible."""
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS", 90)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW", 180)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(gps: Mapping[int, Any], tag: int, ref_tag: int, letters: str, most: float) -> float | None:
    """Convert degrees, minutes and seconds; minutes and seconds may be missing. A rational of denominator 0 is none."""
    letter = _text(gps.get(ref_tag))[:1].upper()
    values = gps.get(tag)
    parts = [_number(part) for part in (values if isinstance(values, tuple) else (values,))][:3]
    if not letter or letter not in letters or not parts or None in parts:
        return None
    degrees = sum((part or 0.0) / 60.0**power for power, part in enumerate(parts))
    if not abs(degrees) <= most:
        return None
    return round(-degrees if letter == letters[1] else degrees, 7) + 0.0  # no -0.0


def _altitude(gps: Mapping[int, Any]) -> float | None:
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    ref = gps.get(ExifTags.GPS.GPSAltitudeRef, 0)
    if altitude is None:
        return None
    is_below = ref in (1, 3, b"\1", b"\3", "1", "3")  # 2 and 3 of EXIF 3.0 are above and below the ellipsoid
    return round(-altitude if is_below else altitude, 3) + 0.0


def _number(value: object) -> float | None:
    """Convert a number or the text of one; None if it is none, or not finite, such as a rational of denominator 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _camera(first: Mapping[int, Any]) -> str | None:
    make, model = (_text(first.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    if not make or model.lower().startswith(make.lower().split()[0]):
        return model or None
    return f"{make} {model}".strip()


def _text(value: object) -> str:
    """Return a text without what follows its end, and with single blanks; empty if it is none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(value.partition("\0")[0].split()) if isinstance(value, str) else ""
