"""HEIC and AVIF: the pixels of the same picture in PNG, upright, whatever the file's name; damage is noticed."""

import io
import random

import numpy as np
import pillow_heif
import pytest
from conftest import DEMO_PHOTOS
from PIL import ExifTags, Image

from crossfilter_inference.encoders.registry import load_encoder, resolve_encoder
from crossfilter_inference.photos.heic import zeroed_bytes
from crossfilter_inference.photos.image import ImageError, Preprocessing, load_image

PREPROCESSING = Preprocessing(64, Image.Resampling.BICUBIC, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module", autouse=True)
def heic():
    pillow_heif.register_heif_opener()


def saved(image, kind="HEIF", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos():
    return [Image.open(path).convert("RGB") for path in DEMO_PHOTOS[::8]]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("HEIF", {"quality": 90}), ("HEIF", {"quality": 90, "tile_size": 256}), ("AVIF", {"quality": 90})],
    ids=["HEIC", "HEIC in tiles", "AVIF"],
)
def test_the_embedding_is_that_of_the_same_picture_in_png(photos, kind, options):
    provenance = resolve_encoder("T", {"backend": "efficientnet_lite0", "dtype": "float32"})
    encoder = load_encoder(provenance, "cpu", 1)
    rows, expected = (
        encoder.encode_images(
            np.stack([load_image(saved(photo, *how[:1], **how[1]), encoder.preprocessing).pixels for photo in photos])
        )
        for how in ((kind, options), ("PNG", {}))
    )
    assert (1 - (rows * expected).sum(axis=1)).max() < 0.005


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright(orientation):
    square = Image.new("RGB", (128, 64), "white")
    square.paste("red", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    heic, png = (
        load_image(saved(square, kind, exif=exif.tobytes(), **how), PREPROCESSING)
        for kind, how in (("HEIF", {"quality": -1, "chroma": 444}), ("PNG", {}))
    )
    assert (heic.width, heic.height) == (png.width, png.height) == ((128, 64) if orientation < 5 else (64, 128))
    assert np.abs(heic.pixels.astype(int) - png.pixels).max() < 30


def test_the_orientation_of_the_container_counts_not_that_of_the_exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = saved(Image.new("RGB", (128, 64)), exif=exif.tobytes())
    number = data.index(b"\x01\x12\0\x03\0\0\0\x01\0\x06")
    for value in (b"\x06", b"\x01", b"\x03"):  # 90 degrees by irot, whatever the EXIF says
        loaded = load_image(data[: number + 9] + value + data[number + 10 :], PREPROCESSING)
        assert (loaded.width, loaded.exif.orientation) == (64, 1)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA"])
def test_images_of_other_modes_are_read(mode):
    loaded = load_image(saved(Image.new(mode, (64, 64), 255 if mode == "L" else None)), PREPROCESSING)
    assert loaded.pixels.shape == (64, 64, 3)
    assert (loaded.pixels > 250).all()


def test_a_cut_file_is_damaged(photos):
    data = saved(photos[0])
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"Unexpected end of file|cannot be read"):
            load_image(data[: int(share * len(data))], PREPROCESSING)


@pytest.mark.parametrize("options", [{}, {"tile_size": 128}, {"quality": -1}], ids=["one", "tiles", "lossless"])
def test_a_part_of_zeros_is_damaged(photos, options):
    data = saved(photos[0], **options)
    assert load_image(data, PREPROCESSING)
    chance = random.Random(1)
    for _ in range(10):
        start = chance.randrange(len(data) // 2, len(data) - 600)
        with pytest.raises(ImageError, match="bytes of the coded image are zeros") as caught:
            load_image(data[:start] + bytes(512) + data[start + 512 :], PREPROCESSING)
        assert caught.value.reason == "damaged"


def test_many_whole_files_are_not_damaged(photos):
    flat = [Image.new("RGB", (512, 512), colour) for colour in ("black", "white", "grey")]
    for image in [*photos, *flat]:
        for quality in (10, 50, 95):
            assert load_image(saved(image, quality=quality), PREPROCESSING).width == image.width


def test_boxes_that_cannot_be_read_are_left_to_the_decoder(photos):
    data = saved(photos[0])
    assert zeroed_bytes(data[: data.index(b"meta") - 4]) == 0
    for name in (b"iinf", b"iloc"):
        assert zeroed_bytes(data.replace(name, b"free", 1)) == 0
    at = data.index(b"iloc") + 8
    endless = data[:at] + b"\0\0" + b"\xff" * 200 + data[at + 202 :]
    assert zeroed_bytes(endless) == 0
