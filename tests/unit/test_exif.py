import io

import pytest
from hostile_files import HALVES, saved
from PIL import ExifTags, Image

from crossfilter_inference.photos.exif import read_exif
from crossfilter_inference.photos.image import Preprocessing, load_image

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
ORIGINAL, DIGITIZED = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized


def taken(first=None, **details):
    exif = Image.Exif()
    if first:
        exif[ExifTags.Base.DateTime] = first
    for tag, value in details.items():
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[tag]] = value
    return load_image(saved(exif=exif), PREPROCESSING).exif.taken


def test_the_time_of_the_shot_comes_before_that_of_the_scan_and_of_the_last_change():
    shot, scan, change = "2001:01:01 01:01:01", "2002:02:02 02:02:02", "2003:03:03 03:03:03"
    assert taken(change, DateTimeOriginal=shot, DateTimeDigitized=scan) == "2001-01-01T01:01:01"
    assert taken(change, DateTimeDigitized=scan) == "2002-02-02T02:02:02"
    assert taken(change, DateTimeOriginal="    :  :     :  :  ") == "2003-03-03T03:03:03"


@pytest.mark.parametrize(
    "text",
    ["2021-05-06T07:08:09Z", "2021:05:06 07:08:09.123", "2021/05/06 07:08:09+02:00", "2021-05-06 07:08:09.5-03:00"],
)
def test_a_time_may_be_spelt_otherwise(text):
    assert taken(DateTimeOriginal=text) == "2021-05-06T07:08:09"


@pytest.mark.parametrize(
    "text", ["0001:01:01 00:00:00", "1899:12:31 23:59:59", "2999:01:01 00:00:00", "2021:13:01 00:00:00"]
)
def test_an_impossible_time_is_none(text):
    assert taken(DateTimeOriginal=text) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_is_turned_upright_once(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = HALVES.transpose(Image.Transpose.ROTATE_90)
    loaded = load_image(saved(stored, kind, exif=exif), PREPROCESSING)
    assert (loaded.width, loaded.height) == (64, 48)
    assert loaded.pixels[:, :12, 0].min() > 180 > 80 > loaded.pixels[:, 20:, 0].max()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_of_xmp_does_not_count(kind):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    data = saved(HALVES, kind, xmp=xmp)
    loaded = load_image(data, PREPROCESSING)
    assert (loaded.width, loaded.height) == (64, 48)


def test_the_orientation_of_the_exif_directory_does_not_count():
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.Orientation] = 8
    with Image.open(io.BytesIO(saved(exif=exif))) as image:
        assert read_exif(image).orientation == 1
