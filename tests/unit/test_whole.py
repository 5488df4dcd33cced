"""Whether a picture is whole is judged by its pixels."""

import io
import random
import zlib

import numpy as np
import pytest
from conftest import DEMO
from hostile_files import HALVES, jpeg_with, png_chunk, png_with, saved, segment
from PIL import Image, ImageCms

from crossfilter_inference.photos import colours
from crossfilter_inference.photos.image import ImageError, Preprocessing, load_image

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)


def photo(kind="JPEG", mode="RGB", **options):
    with Image.open(DEMO / "fish" / "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg") as image:
        return saved(image.convert(mode).resize((320, 240)), kind, **options)


JPEGS = {
    "baseline": photo(quality=90),
    "4:4:4": photo(quality=95, subsampling=0),
    "optimised": photo(optimize=True),
    "progressive": photo(progressive=True),
    "restart markers": photo(restart_marker_rows=1),
    "grey": photo(mode="L"),
    "CMYK": photo(mode="CMYK"),
}
LAYOUTS = {
    "without an end marker": lambda data: data[:-2],
    "half an end marker": lambda data: data[:-1],
    "zeros for its end marker": lambda data: data[:-2] + bytes(4096),
    "padding before its end marker": lambda data: data[:-2] + bytes(7) + data[-2:],
    "fill bytes before its end marker": lambda data: data[:-2] + b"\xff" * 7 + data[-2:],
    "garbage between its segments": lambda data: data.replace(b"\xff\xda", b"\1\2\3\xff\xda", 1),
    "a video behind it": lambda data: data + b"\0\0\0\x18ftypmp42" + bytes(5000) + b"\xff\xff\0\xff\xd8\xff",
    "an unknown JFIF version": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\3", 1),
    "megabytes of comments": lambda data: data[:2] + segment(0xFE, b"\xff\xda" * 30_000) * 20 + data[2:],
}


def middle(data):
    start = data.index(b"\xff\xda") + 14
    return (start + len(data)) // 2


DAMAGE = {
    "cut": lambda data: data[: middle(data)],
    "cut, with an end marker": lambda data: data[: middle(data)] + b"\xff\xd9",
    "half of zeros": lambda data: data[: middle(data)] + bytes(len(data) - middle(data) - 2) + b"\xff\xd9",
    "a block of zeros": lambda data: data[: middle(data)] + bytes(1024) + data[middle(data) + 1024 :],
    "a block of ones": lambda data: data[: middle(data)] + b"\xff" * 1024 + data[middle(data) + 1024 :],
    "a block of noise": lambda data: (
        data[: middle(data)] + random.Random(1).randbytes(1024) + data[middle(data) + 1024 :]
    ),
    "a block taken out": lambda data: data[: middle(data)] + data[middle(data) + 1024 :],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_embedded_whatever_lies_beside_its_pixels(kind, layout):
    pixels = load_image(JPEGS[kind], PREPROCESSING).pixels
    assert np.array_equal(load_image(LAYOUTS[layout](JPEGS[kind]), PREPROCESSING).pixels, pixels)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_damaged(kind, damage):
    with pytest.raises(ImageError) as raised:
        load_image(DAMAGE[damage](JPEGS[kind]), PREPROCESSING)
    assert raised.value.reason == "damaged"


def test_zeros_that_libjpeg_takes_for_codes_are_damage():
    """The coded data of the block are replaced by as many zeros as leave no warning."""
    from crossfilter_inference.photos import jpeg

    segments = list(jpeg._Frame().read(JPEGS["grey"]))
    holed = jpeg._Scan(segments[-1][:500] + bytes(512) + segments[-1][500:])
    assert not jpeg._has_hole(segments)
    assert jpeg._has_hole([*segments[:-1], holed])


def test_every_scan_of_a_progressive_jpeg_must_have_come():
    data = JPEGS["progressive"]
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    assert len(starts) > 5
    for at in starts[1:]:
        with pytest.raises(ImageError, match=r"about \d+% of its detail can be decoded"):
            load_image(data[:at] + b"\xff\xd9", PREPROCESSING)


def test_the_message_says_how_much_is_there():
    data = JPEGS["baseline"]
    start = data.index(b"\xff\xda") + 14
    for share in (0.25, 0.75):
        with pytest.raises(ImageError, match=r"about (\d+)% of its pixels can be decoded") as raised:
            load_image(data[: start + int(share * (len(data) - start))], PREPROCESSING)
        assert abs(int(str(raised.value).split("%")[0].split()[-1]) - 100 * share) < 20


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_pixels_are_those_of_pillow(options):
    data = photo(**options)
    same = Preprocessing(size=240, resample=0, mean=(0.5,) * 3, std=(0.5,) * 3)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(load_image(data, same).pixels, np.asarray(image.crop((40, 0, 280, 240))))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP"])
def test_every_format_that_is_cut_is_damaged(kind):
    data = photo(kind)
    with pytest.raises(ImageError) as raised:
        load_image(data[: len(data) * 2 // 3], PREPROCESSING)
    assert raised.value.reason == "damaged"


def test_a_png_is_whole_with_a_wrong_checksum_beside_its_pixels():
    data = png_with(png_chunk(b"tIME", b"\0" * 7)[:-4] + b"oops")
    assert np.array_equal(load_image(data, PREPROCESSING).pixels, load_image(saved(kind="PNG"), PREPROCESSING).pixels)


def test_a_png_whose_pixels_were_overwritten_is_damaged():
    pixels = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "PNG", compress_level=0))
    data[9000:9600] = bytes(600)
    with pytest.raises(ImageError, match="checksums do not match"):
        load_image(bytes(data), PREPROCESSING)


def test_a_wrong_checksum_of_a_chunk_costs_no_png_whose_pixels_are_right():
    data = saved(kind="PNG")
    at = data.index(b"IDAT") - 4
    end = at + 8 + int.from_bytes(data[at : at + 4], "big")
    broken = data[:end] + (zlib.crc32(b"another")).to_bytes(4, "big") + data[end + 4 :]
    assert np.array_equal(load_image(broken, PREPROCESSING).pixels, load_image(data, PREPROCESSING).pixels)


def test_a_profile_that_changes_nothing_or_belongs_to_another_space_is_skipped():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert colours._transform(srgb, "RGB") is None
    assert colours._transform(srgb, "L") is None
    assert colours._transform(srgb, "LAB") is colours._transform(None, "LAB") is not None
    assert colours._transform(b"no profile", "RGB") is None


def test_lab_becomes_rgb():
    lab = ImageCms.applyTransform(
        HALVES,
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    pixels = load_image(saved(lab, "TIFF"), PREPROCESSING).pixels.astype(int)
    assert np.abs(pixels[:, :12] - [250, 0, 0]).max() < 12


def test_thumbnails_hold_pixels_alone():
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        data = saved(HALVES, kind, comment=b"a secret" * 5000, exif=exif, icc_profile=icc, xmp=b"a secret")
        thumbnail = load_image(data, PREPROCESSING).thumbnail
        assert b"secret" not in thumbnail
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert not image.info.keys() - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "Canon CR3"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "MP4"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4\0\0", "ZIP"),
        (b"\n<!doctype html><html>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm"),
        (jpeg_with(data=saved().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x08")), "lossless JPEG"),
        (jpeg_with(data=saved().replace(b"\xff\xc0", b"\xff\xf7")), "JPEG-LS"),
        (bytes(5000), "zeros alone"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(data, name):
    with pytest.raises(ImageError, match=rf"{name}.*; \w+") as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == "not an image"


@pytest.mark.parametrize(
    ("tags", "name"),
    [({50706: b"\1\4\0\0"}, "DNG"), ({254: 1, 330: 8, 271: "NIKON CORPORATION"}, r"raw format \(Nikon\)")],
)
def test_a_raw_file_is_not_embedded_from_its_preview(tags, name):
    from PIL import TiffImagePlugin

    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    with pytest.raises(ImageError, match=name):
        load_image(saved(HALVES, "TIFF", tiffinfo=directory), PREPROCESSING)


def test_the_limit_of_pixels_counts_both_sides():
    with pytest.raises(ImageError, match="64 x 48 pixels"):
        load_image(saved(), PREPROCESSING, max_pixels=64 * 48 - 1)
    assert load_image(saved(), PREPROCESSING, max_pixels=64 * 48).width == 64
