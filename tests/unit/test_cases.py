"""Files that were once read wrongly, made from a demo photo. 1 - cosine is measured to the same pixels without loss."""

from functools import cache

import numpy as np
import pytest
from conftest import PROJECT

from crossfilter_inference.encoders import registry
from crossfilter_inference.photos.image import ImageError, Preprocessing, load_image

CASES = PROJECT / "tests" / "data" / "cases"
PREPROCESSING = Preprocessing(size=224, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)


@cache
def encoder():
    settings = {"backend": "efficientnet_lite0", "dtype": "float32", "runtime": "torch"}
    return registry.load_encoder(registry.resolve_encoder("CASES", settings), "cpu", 1)


@cache
def row(name):
    loaded = load_image((CASES / name).read_bytes(), encoder().preprocessing)
    found = encoder().encode_images(loaded.pixels[None].copy())[0]
    return found / np.linalg.norm(found)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("orientation-ifd0-6-exif-1.jpg", 0.005),
        ("whole-without-end-marker.jpg", 0.005),
        ("whole-last-byte-missing.jpg", 0.005),
        ("png-compressed-text.png", 0.001),
        ("png-compressed-xmp.png", 0.001),
        ("profile-display-p3.jpg", 0.005),
        ("profile-adobe-rgb.jpg", 0.005),
        ("profile-prophoto.jpg", 0.010),
    ],
)
def test_a_whole_picture_is_embedded_as_its_pixels_look(name, most):
    assert 1 - row(name) @ row("fish-reference.png") < most


def test_a_heic_file_is_embedded_whatever_its_name():
    loaded = load_image((CASES / "heic-named-jpg.jpg").read_bytes(), PREPROCESSING)
    assert (loaded.width, loaded.height) == (320, 240)


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("damaged-second-half-zeros-end-marker.jpg", "damaged", r"about 4\d% of its pixels can be decoded \(Corrupt"),
        ("jpeg-xl-named-jpg.jpg", "not an image", "JPEG XL; run pip .*, or convert it to JPEG"),
        ("jpeg-12-bit.jpg", "not an image", "12-bit JPEG; convert it to JPEG of 8 bits"),
    ],
)
def test_another_file_fails_with_what_it_is(name, reason, message, without_extras):
    with pytest.raises(ImageError, match=message) as raised:
        load_image((CASES / name).read_bytes(), PREPROCESSING)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *((f"date-spelling-{number}.jpg", "2021-05-06T07:08:09") for number in (2, 3, 4)),
        ("date-year-1.jpg", None),
    ],
)
def test_the_time_is_read_in_every_spelling_and_only_if_it_is_possible(name, taken):
    assert load_image((CASES / name).read_bytes(), PREPROCESSING).exif.taken == taken
