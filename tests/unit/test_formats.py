"""Surplus metadata of a JPEG is left out, and nothing that tells how to show its pixels."""

import io

import pytest
from conftest import DEMO_PHOTOS
from hostile_files import HALVES, exif, jpeg_with, saved, segment
from PIL import Image

from crossfilter_inference.photos.formats import without_surplus
from crossfilter_inference.photos.image import Preprocessing, load_image

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
TURNED = segment(0xE1, exif((0x0112, 3, 1, 6)))
TINY = segment(0xE1, b"Exif\0\0abcd")
COMMENT = segment(0xFE, b"x")


def profile(n_segments):
    return [segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, n_segments)) + b"part") for i in range(n_segments)]


@pytest.mark.parametrize(
    "data",
    [
        *(path.read_bytes() for path in DEMO_PHOTOS[:5]),
        saved(kind="PNG") + COMMENT * 9999,
        jpeg_with(TURNED, *[COMMENT] * 256, *profile(255)),
        jpeg_with(b"\xff" * 99),
        saved() + b"\xff\xfe\0\2" * 9999,
        saved()[:300],
        b"\xff\xd8",
        b"",
    ],
)
def test_an_honest_file_is_left_alone(data):
    assert without_surplus(data) is data


@pytest.mark.parametrize(
    "surplus", [[COMMENT] * 3000, [TINY] * 3000, [segment(0xEB, b"x")] * 3000, [b"\xff" * 5000], [bytes(5000)]]
)
def test_surplus_goes_and_orientation_profile_and_colours_stay(surplus):
    cmyk = saved(HALVES.convert("CMYK"), quality=95)  # its Adobe segment says that it is inverted
    for data in (saved(quality=95), cmyk):
        whole = jpeg_with(TURNED, *surplus[: len(surplus) // 2], *profile(255), *surplus, data=data)
        rest = without_surplus(whole)
        assert len(rest) < len(jpeg_with(TURNED, *profile(255), *[TINY] * 300, data=data))
        with Image.open(io.BytesIO(rest)) as image:
            assert len(image.info["icc_profile"]) == 255 * 4
            assert image.getexif()[0x0112] == 6
        plain = load_image(jpeg_with(TURNED, data=data), PREPROCESSING)
        loaded = load_image(whole, PREPROCESSING)
        assert (loaded.pixels == plain.pixels).all()
        assert (loaded.width, loaded.height) == (48, 64)


def test_what_follows_the_start_of_the_pixels_is_not_looked_at():
    data = saved()
    assert without_surplus(data + COMMENT * 9999) == data + COMMENT * 9999


@pytest.mark.parametrize("end", range(1, 40))
def test_a_file_that_ends_anywhere_is_no_fault(end):
    data = jpeg_with(TURNED, *[COMMENT] * 300)
    assert len(without_surplus(data[:-end])) <= len(data)
    assert len(without_surplus(jpeg_with(*[COMMENT] * 300)[: 1400 + end])) <= 1400
