"""Facts of a photo that its sidecars and its file name tell where its EXIF does not.

Google Takeout writes sidecars in JSON, photo editors in XMP (ISO 16684-1).
"""

import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from .exif import possible_time, read_time
from .sidecars import match_sidecars

_MAX_BYTES = 2**20  # of a sidecar

# IMG_20210506_070809.jpg, PXL_20210506_070809123.jpg, 2021-05-06 07.08.09.jpg, Screenshot_2021-05-06-07-08-09.png.
_TIME = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)[-_ .T]+(?:at )?(\d\d)([-_.:]?)(\d\d)\6(\d\d)(?:\d{3})?(?!\d)")
# IMG-20210506-WA0001.jpg, Photo 2021-05-06.jpg.
_DAY = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d\d)\2(\d\d)(?!\d)")


def complete_facts(facts: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Add to the facts of a photo what is recorded next to it.

    Parameters
    ----------
    facts : mapping
        Facts from the file's contents, by column in lower case.
    path : str

    Returns
    -------
    dict
        The facts, with time and place of the sidecars, or the time of the file name, where the contents have none; and
        with the source of the time, `taken_from`: "exif", "sidecar", "name", or None. If a file name gives only
        the day, so does `taken`.
    """
    found = sidecar_facts(path)
    complete = {**facts, "taken_from": "exif" if facts["taken"] else None}
    if not facts["taken"]:
        time = found.get("taken") or _time_of_name(os.path.basename(path))
        source = "sidecar" if "taken" in found else "name" if time else None
        complete |= {"taken": time, "taken_offset": found.get("taken_offset"), "taken_from": source}
    if facts["latitude"] is None and "latitude" in found:
        complete |= {key: found.get(key) for key in ("latitude", "longitude", "altitude")}
    return complete


def _time_of_name(name: str) -> str | None:
    times = (possible_time(*match.group(1, 3, 4, 5, 7, 8)) for match in _TIME.finditer(name))
    midnights = (possible_time(*match.group(1, 3, 4), "0", "0", "0") for match in _DAY.finditer(name))
    days = (midnight and midnight.partition("T")[0] for midnight in midnights)
    return next(filter(None, chain(times, days)), None)


def sidecar_facts(path: str) -> dict[str, Any]:
    """Read what the sidecars of a photo record.

    Parameters
    ----------
    path : str
        Of the photo.

    Returns
    -------
    dict
        Of `taken`, `taken_offset`, `latitude`, `longitude` and `altitude`, as of `Exif`, those that are known. A
        sidecar that cannot be read records nothing.
    """
    folder, name = os.path.split(path)
    try:
        sidecars = _sidecars_in(folder, os.stat(folder).st_mtime_ns).get(name, [])
    except OSError:
        return {}
    facts: dict[str, Any] = {}
    for sidecar in sidecars:
        found = read_sidecar(os.path.join(folder, sidecar))
        for keys in (("taken", "taken_offset"), ("latitude", "longitude", "altitude")):
            if keys[0] in found and keys[0] not in facts:
                facts |= {key: found[key] for key in keys if key in found}
    return facts


@lru_cache(maxsize=8)
def _sidecars_in(folder: str, mtime_ns: int) -> dict[str, list[str]]:
    return match_sidecars(os.listdir(folder))


def read_sidecar(path: str) -> dict[str, Any]:
    """Read one sidecar; parameters and result as of `sidecar_facts`, but for the path of the sidecar itself."""
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            return {}
        data = Path(path).read_bytes()
        found = _of_takeout(json.loads(data)) if path.lower().endswith(".json") else _of_xmp(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SyntaxError):
        return {}
    return {key: value for key, value in found.items() if value is not None}


def _of_takeout(record: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "photoTakenTime" in record:
        time = datetime.fromtimestamp(int(record["photoTakenTime"]["timestamp"]), UTC)
        if taken := possible_time(*map(str, time.timetuple()[:6])):
            facts = {"taken": taken, "taken_offset": "+00:00"}
    for place in (record.get("geoData"), record.get("geoDataExif")):
        if place and (place["latitude"] or place["longitude"]):  # Takeout writes 0, 0 for an unknown place
            return facts | _place(place["latitude"], place["longitude"], place.get("altitude") or None)
    return facts


def _of_xmp(data: bytes) -> dict[str, Any]:
    if b"<!DOCTYPE" in data:  # XMP has none, and only one can make a parser expand entities
        return {}
    from xml.etree import ElementTree

    values: dict[str, str] = {}
    for element in ElementTree.fromstring(data).iter():
        for key, value in ((element.tag, element.text), *element.attrib.items()):
            values.setdefault(key.rpartition("}")[2], (value or "").strip())
    facts: dict[str, Any] = {}
    for key in ("DateTimeOriginal", "DateCreated", "CreateDate"):
        taken, offset = read_time(values.get(key, ""))
        if taken:
            facts = {"taken": taken, "taken_offset": offset}
            break
    latitude, longitude = (_xmp_degrees(values.get(f"GPS{axis}itude", "")) for axis in ("Lat", "Long"))
    altitude = _rational(values.get("GPSAltitude", ""))
    if altitude is not None and values.get("GPSAltitudeRef") == "1":
        altitude = -altitude
    return facts | _place(latitude, longitude, altitude)


def _rational(text: str) -> float | None:
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _xmp_degrees(text: str) -> float | None:
    """Convert `DDD,MM,SSk` or `DDD,MM.mmk` to degrees."""
    match = re.fullmatch(r"(\d+),(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?([NSEW])", text)
    if not match:
        return None
    degrees = int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
    return -degrees if match[4] in "SW" else degrees


def _place(latitude: float | None, longitude: float | None, altitude: float | None) -> dict[str, Any]:
    """Return a place on Earth in the units of `Exif`; empty if it is none."""
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return {}
    place = {"latitude": round(float(latitude), 7) + 0.0, "longitude": round(float(longitude), 7) + 0.0}
    if altitude is not None and math.isfinite(altitude):
        place["altitude"] = round(float(altitude), 3) + 0.0
    return place
