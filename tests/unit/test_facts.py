"""When and where a photo was taken, and by which camera: from its EXIF, read as exiftool reads it, or from its name."""

import json
import shutil
import subprocess

import pillow_heif
import pytest
from hostile_files import HALVES, saved
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from crossfilter_inference.photos.facts import complete_facts
from crossfilter_inference.photos.image import Preprocessing, load_image

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
pillow_heif.register_heif_opener()
GPS, BASE = ExifTags.GPS, ExifTags.Base


def dms(*parts):
    return tuple(IFDRational(*part) if isinstance(part, tuple) else IFDRational(part) for part in parts)


def place(latitude, north, longitude, east):
    return {
        GPS.GPSLatitude: latitude,
        GPS.GPSLatitudeRef: north,
        GPS.GPSLongitude: longitude,
        GPS.GPSLongitudeRef: east,
    }


PARIS = dms(48, 51, (3024, 100)), dms(2, 17, (4020, 100))

# GPS directory, latitude, longitude.
PLACES = {
    "north and east": (place(PARIS[0], "N", PARIS[1], "E"), 48.8584, 2.2945),
    "south and west": (place(PARIS[0], "S", PARIS[1], "W"), -48.8584, -2.2945),
    "north and west": (place(PARIS[0], "N", PARIS[1], "W"), 48.8584, -2.2945),
    "south and east": (place(PARIS[0], "S", PARIS[1], "E"), -48.8584, 2.2945),
    "small letters": (place(PARIS[0], "s", PARIS[1], "w"), -48.8584, -2.2945),
    "words": (place(PARIS[0], "South", PARIS[1], "West"), -48.8584, -2.2945),
    "decimal minutes": (place(dms(48, (51504, 1000), 0), "N", dms(2, (1767, 100), 0), "E"), 48.8584, 2.2945),
    "decimal degrees": (
        place(dms((488584, 10000), 0, 0), "N", dms((22945, 10000), 0, 0), "E"),
        48.8584,
        2.2945,
    ),
    "seconds of denominator 0": (place(dms(48, 51, (0, 0)), "N", dms(2, 17, (0, 0)), "E"), None, None),
    "minutes of denominator 0": (place(dms(48, (51, 0), 0), "N", dms(2, (17, 0), 0), "E"), None, None),
    "the equator": (place(dms(0, 0, 0), "N", PARIS[1], "E"), 0, 2.2945),
    "the south pole": (place(dms(90, 0, 0), "S", dms(0, 0, 0), "E"), -90, 0),
    "the date line": (place(dms(16, 30, 0), "S", dms(180, 0, 0), "W"), -16.5, -180),
    "large denominators": (
        place(dms(48, 51, (30240000, 1000000)), "N", dms(2, 17, (40200000, 1000000)), "E"),
        48.8584,
        2.2945,
    ),
    "no letter": ({GPS.GPSLatitude: PARIS[0], GPS.GPSLongitude: PARIS[1]}, None, None),
}
IMPOSSIBLE = {
    "degrees of denominator 0": place(dms((0, 0), 0, 0), "N", PARIS[1], "E"),
    "beyond the pole": place(dms(91, 0, 0), "N", PARIS[1], "E"),
    "beyond the date line": place(PARIS[0], "N", dms(181, 0, 0), "E"),
    "another letter": place(PARIS[0], "X", PARIS[1], "E"),
    "no longitude": {GPS.GPSLatitude: PARIS[0], GPS.GPSLatitudeRef: "N"},
    "an empty directory": {GPS.GPSMapDatum: "WGS-84"},
}
# GPS directory, altitude.
ALTITUDES = {
    "above the sea": ({GPS.GPSAltitude: IFDRational(3532, 100), GPS.GPSAltitudeRef: b"\0"}, 35.32),
    "below the sea": ({GPS.GPSAltitude: IFDRational(430), GPS.GPSAltitudeRef: b"\1"}, -430),
    "no reference": ({GPS.GPSAltitude: IFDRational(12)}, 12),
    "denominator 0": ({GPS.GPSAltitude: IFDRational(0, 0), GPS.GPSAltitudeRef: b"\0"}, None),
    "zero": ({GPS.GPSAltitude: IFDRational(0, 1), GPS.GPSAltitudeRef: b"\1"}, 0),
}
# Tags of the Exif directory, time, offset.
TIMES = {
    "plain": ({BASE.DateTimeOriginal: "2021:05:06 07:08:09"}, "2021-05-06T07:08:09", None),
    "offset": (
        {BASE.DateTimeOriginal: "2021:05:06 07:08:09", BASE.OffsetTimeOriginal: "+02:00"},
        "2021-05-06T07:08:09",
        "+02:00",
    ),
    "offset of another time": (
        {BASE.DateTimeOriginal: "2021:05:06 07:08:09", BASE.OffsetTimeDigitized: "+02:00"},
        "2021-05-06T07:08:09",
        None,
    ),
    "offset west": (
        {BASE.DateTimeDigitized: "2021:05:06 07:08:09", BASE.OffsetTimeDigitized: "-03:30"},
        "2021-05-06T07:08:09",
        "-03:30",
    ),
    "UTC": ({BASE.DateTimeOriginal: "2021-05-06T07:08:09Z"}, "2021-05-06T07:08:09", "+00:00"),
    "offset in the time": ({BASE.DateTimeOriginal: "2021:05:06 07:08:09+02:00"}, "2021-05-06T07:08:09", "+02:00"),
    "fractions and offset": ({BASE.DateTimeOriginal: "2021:05:06 07:08:09.25-0300"}, "2021-05-06T07:08:09", "-03:00"),
    "no seconds": ({BASE.DateTimeOriginal: "2021:05:06 07:08"}, "2021-05-06T07:08:00", None),
    "slashes": ({BASE.DateTimeOriginal: "2021/05/06 07:08:09"}, "2021-05-06T07:08:09", None),
    "impossible offset": (
        {BASE.DateTimeOriginal: "2021:05:06 07:08:09", BASE.OffsetTimeOriginal: "+99:00"},
        "2021-05-06T07:08:09",
        None,
    ),
    "blank offset": (
        {BASE.DateTimeOriginal: "2021:05:06 07:08:09", BASE.OffsetTimeOriginal: "   :  "},
        "2021-05-06T07:08:09",
        None,
    ),
    "zeros": ({BASE.DateTimeOriginal: "0000:00:00 00:00:00"}, None, None),
}
CAMERAS = {
    "make and model": ("Apple", "iPhone 12", "Apple iPhone 12"),
    "a model with its make": ("Canon", "Canon EOS R5", "Canon EOS R5"),
    "a company": ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
    "blanks and zeros": ("OLYMPUS IMAGING CORP.  \0", "  E-M5 \0\0", "OLYMPUS IMAGING CORP. E-M5"),
    "make alone": ("Fairphone", None, "Fairphone"),
    "model alone": (None, "DSC-W5", "DSC-W5"),
    "none": (None, None, None),
}


def photo(gps=None, details=None, make=None, model=None, kind="JPEG"):
    exif = Image.Exif()
    for tag, value in ((BASE.Make, make), (BASE.Model, model)):
        if value:
            exif[tag] = value
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    exif.get_ifd(ExifTags.IFD.Exif).update(details or {})
    return saved(HALVES, kind, exif=exif.tobytes())


def facts(data):
    return load_image(data, PREPROCESSING).facts


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_every_format_tells_time_and_place(kind):
    found = facts(photo(PLACES["south and west"][0], TIMES["offset"][0], "Apple", "iPhone 12", kind))
    assert (found["latitude"], found["longitude"]) == (-48.8584, -2.2945)
    assert (found["taken"], found["taken_offset"], found["camera"]) == (
        "2021-05-06T07:08:09",
        "+02:00",
        "Apple iPhone 12",
    )


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_read_in_every_spelling(name):
    gps, latitude, longitude = PLACES[name]
    found = facts(photo(gps))
    assert (found["latitude"], found["longitude"]) == (latitude, longitude)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_place_is_none(name):
    found = facts(photo(IMPOSSIBLE[name]))
    assert (found["latitude"], found["longitude"]) == (None, None)


@pytest.mark.parametrize("name", ALTITUDES)
def test_the_altitude_is_read(name):
    gps, altitude = ALTITUDES[name]
    assert facts(photo(gps))["altitude"] == altitude


@pytest.mark.parametrize("name", TIMES)
def test_the_offset_from_utc_is_read(name):
    details, taken, offset = TIMES[name]
    found = facts(photo(details=details))
    assert (found["taken"], found["taken_offset"]) == (taken, offset)


@pytest.mark.parametrize("name", CAMERAS)
def test_the_camera_is_make_and_model(name):
    make, model, camera = CAMERAS[name]
    assert facts(photo(make=make, model=model))["camera"] == camera


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_exiftool_reads_the_same(tmp_path):
    expected = {}
    for number, (name, (gps, latitude, longitude)) in enumerate(PLACES.items()):
        (tmp_path / f"place{number}.jpg").write_bytes(photo(gps))
        expected[f"place{number}.jpg"] = name, latitude, longitude, None, None
    for number, (name, (gps, altitude)) in enumerate(ALTITUDES.items()):
        (tmp_path / f"altitude{number}.jpg").write_bytes(photo(gps))
        # Without a reference, EXIF's default is above the sea; exiftool only shows the raw number.
        expected[f"altitude{number}.jpg"] = name, None, None, altitude if len(gps) > 1 else None, None
    for number, (name, (make, model, _)) in enumerate(CAMERAS.items()):
        (tmp_path / f"camera{number}.jpg").write_bytes(photo(make=make, model=model))
        expected[f"camera{number}.jpg"] = name, None, None, None, (make and " ".join(make.strip("\0 ").split()))
    command = ["exiftool", "-json", "-n", "-Composite:GPSLatitude", "-Composite:GPSLongitude", "-Composite:GPSAltitude"]
    done = subprocess.run([*command, "-Make", tmp_path], capture_output=True, check=True, text=True)
    for found in json.loads(done.stdout):
        name, *values, make = expected[found["SourceFile"].rpartition("/")[2]]
        keys = ("GPSLatitude", "GPSLongitude", "GPSAltitude")
        theirs = [None if found.get(key) == "" else found.get(key) for key in keys]
        assert theirs == pytest.approx(values, abs=1e-6), name
        assert found.get("Make") == make, name


@pytest.mark.parametrize(
    "name",
    [
        "IMG_20210506_070809.jpg",
        "PXL_20210506_070809123.jpg",
        "IMG_20210506_070809_HDR.JPG",
        "20210506_070809.heic",
        "2021-05-06 07.08.09.jpg",
        "2021-05-06 07.08.09-1.jpg",
        "Screenshot_2021-05-06-07-08-09.png",
        "Screenshot_20210506-070809_Photos.jpg",
        "signal-2021-05-06-070809.jpeg",
        "Photo 2021-05-06 at 07.08.09.jpg",
    ],
)
def test_a_file_name_tells_the_time_where_the_exif_does_not(name):
    found = complete_facts(facts(photo()), f"/photos/2020-01-01 01.01.01/{name}")
    assert (found["taken"], found["taken_from"], found["taken_offset"]) == ("2021-05-06T07:08:09", "name", None)
    found = complete_facts(facts(photo(details={BASE.DateTimeOriginal: "2001:01:01 01:01:01"})), name)
    assert (found["taken"], found["taken_from"]) == ("2001-01-01T01:01:01", "exif")


@pytest.mark.parametrize(
    "name",
    [
        "IMG-20210506-WA0001.jpg",
        "VID-12345678-20210506.jpg",
        "IMG_20210506.jpg",
        "IMG_20210506_990809.jpg",
        "Photo 2021-05-06.jpg",
        "2021_05_06 (1).png",
    ],
)
def test_a_file_name_without_a_time_tells_the_day(name):
    found = complete_facts(facts(photo()), f"/photos/2020-01-01/{name}")
    assert (found["taken"], found["taken_from"]) == ("2021-05-06", "name")


@pytest.mark.parametrize(
    "name",
    [
        "IMG_20219906_070809.jpg",
        "20210506070809.jpg",
        "IMG_0001.jpg",
        "120210506_0708091.jpg",
        "18500101_000000.jpg",
        "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg",
    ],
)
def test_other_names_tell_no_time(name):
    found = complete_facts(facts(photo()), name)
    assert (found["taken"], found["taken_from"]) == (None, None)
