"""Whether a picture is whole is judged by its pixels."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from conftest import DEMO, DEMO_PHOTOS, PROJECT
from hostile_files import HALVES, exif, jpeg_with, png_chunk, png_with, saved, segment
from PIL import Image, ImageCms

from crossfilter_inference.photos import colours, jpeg
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


@pytest.mark.parametrize("kind", ["baseline", "4:4:4", "optimised", "grey", "CMYK"])
@pytest.mark.parametrize("hole", ["zeros", "ones"])
def test_a_hole_that_libjpeg_decodes_without_a_warning_is_damage(kind, hole):
    data = JPEGS[kind]
    mode = {"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB")
    if hole == "ones":  # libjpeg takes ones for filling, even before a byte of the scan
        holed = [data.replace(b"\xff\0", b"\xff" * 512 + b"\xff\0", 1)]
    else:  # and zeros for codes, of which some numbers leave no warning
        at = len(data) - 1000
        holed = [data[:at] + bytes(n) + data[at + 512 :] for n in range(129, 1400, 3)]
    quiet = [file for file in holed if is_quiet(file, mode)]
    assert quiet
    for file in quiet:
        with pytest.raises(ImageError) as raised:
            load_image(file, PREPROCESSING)
        assert raised.value.reason == "damaged"


def is_quiet(data, mode):
    try:
        return jpeg._strictly(data, mode, (320, 240)).size > 0
    except ValueError:
        return False


@pytest.mark.parametrize("kind", ["optimised", "grey", "jpegli"])
def test_other_codes_in_place_of_a_part_are_heard_by_blocks_beyond_black_and_white(kind):
    """Files of `benchmarks/damage.py` that libjpeg decodes without a warning."""
    data = (PROJECT / "tests" / "data" / "cases" / f"damaged-other-codes-{kind}.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert jpeg._whole(data, image.mode, image.size).shape[:2] == image.size[::-1]
    with pytest.raises(ImageError, match=r"wrong .darker than black or brighter than white") as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == "damaged"


@pytest.mark.parametrize("path", DEMO_PHOTOS[::3], ids=lambda path: path.stem[:8])
def test_no_block_of_a_whole_photo_is_beyond_black_and_white(path):
    assert not jpeg._exceeds_range(path.read_bytes())


@pytest.mark.parametrize("colours", [("black", "white"), ("white", "black"), ("red", "cyan"), ("yellow", "blue")])
@pytest.mark.parametrize(
    "options", [{"quality": 100}, {"quality": 75}, {"quality": 5}, {"quality": 92, "subsampling": 0}]
)
def test_the_hardest_edges_between_blocks_are_no_damage(colours, options):
    image = Image.new("RGB", (640, 480), colours[0])
    image.paste(colours[1], (0, 240, 640, 480))
    data = saved(image, **options)
    assert jpeg._has_step(jpeg._whole(data, "RGB", image.size), data)
    assert np.ptp(load_image(data, PREPROCESSING).pixels) >= 200


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
        (bytes(5000), "only zeros"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(data, name, without_extras):
    with pytest.raises(ImageError, match=rf"{name}.*; \w+") as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == "not an image"


@pytest.mark.parametrize(
    ("tags", "name"),
    [({50706: b"\1\4\0\0"}, "DNG"), ({254: 1, 330: 8, 271: "NIKON CORPORATION"}, r"raw format \(Nikon\)")],
)
def test_a_raw_file_is_not_embedded_from_its_preview(tags, name, without_extras):
    from PIL import TiffImagePlugin

    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    with pytest.raises(ImageError, match=name):
        load_image(saved(HALVES, "TIFF", tiffinfo=directory), PREPROCESSING)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ([(254, 4, 1, 1), (259, 3, 1, 6), (271, 2, 4, 0x594E4F53), (330, 4, 1, 999)], r"raw format \(Sony\)"),
        ([(256, 4, 1, 6000), (259, 3, 1, 65535), (262, 3, 1, 32803)], "a camera's raw format"),
        ([(256, 4, 1, 6000), (259, 3, 1, 7), (50706, 1, 4, 0x401)], "DNG"),
    ],
)
def test_a_raw_file_that_is_no_readable_tiff_is_named(tags, name, without_extras):
    with pytest.raises(ImageError, match=rf"{name}.*; run pip .*, or export it as JPEG with a raw conv") as raised:
        load_image(exif(*tags)[6:] + bytes(500), PREPROCESSING)
    assert raised.value.reason == "not an image"


def profile_of_two_colours(space, table):
    """An ICC profile: grey with a gamma, or CMYK of which any ink is green and no ink is white, in Lab."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"a\0" + bytes(78), b"wtpt": b"XYZ \0\0\0\0" + white}
    tags |= table
    body, entries = b"", struct.pack(">I", len(tags))
    for tag, data in tags.items():
        entries += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4x4s4s4s4s12x4s28x", 132 + 12 * len(tags) + len(body), b"\2\x40\0\0", b"prtr", *space, b"acsp"
    )
    return (header + white).ljust(128, b"\0") + entries + body


GREY = profile_of_two_colours((b"GRAY", b"XYZ "), {b"kTRC": b"curv" + bytes(4) + struct.pack(">IHxx", 1, 256)})
CMYK = profile_of_two_colours(
    (b"CMYK", b"Lab "),
    {
        b"A2B0": b"mft1\0\0\0\0\4\3\2\0"
        + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        + bytes(range(256)) * 4
        + bytes([255, 128, 128])
        + bytes([180, 70, 190]) * 15
        + bytes(range(256)) * 3
    },
)


@pytest.mark.parametrize(
    ("mode", "colour", "profile", "kind", "expected"),
    [
        ("L", 64, GREY, "JPEG", (137, 137, 137)),  # a quarter of the light
        ("L", 64, GREY, "PNG", (137, 137, 137)),
        ("L", 64, CMYK, "JPEG", (64, 64, 64)),
        ("CMYK", (255, 0, 0, 0), CMYK, "JPEG", (64, 198, 37)),
        ("CMYK", (0, 0, 0, 0), CMYK, "JPEG", (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), CMYK, "TIFF", (64, 198, 37)),
        ("CMYK", (255, 0, 0, 0), GREY, "JPEG", (0, 255, 255)),
    ],
)
def test_grey_and_cmyk_are_converted_by_a_profile_of_their_own_kind(mode, colour, profile, kind, expected):
    options = {"quality": 95} if kind == "JPEG" else {}
    data = saved(Image.new(mode, (64, 48), colour), kind, icc_profile=profile, **options)
    loaded = load_image(data, PREPROCESSING)
    with Image.open(io.BytesIO(loaded.thumbnail)) as thumbnail:
        for pixels in (loaded.pixels, np.asarray(thumbnail)):
            assert np.abs(pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_an_avif_is_applied_once(orientation):
    """Pillow stores it as the properties irot and imir, not in the EXIF."""
    stored = np.random.default_rng(0).integers(0, 2, (6, 8, 1), dtype=np.uint8) * np.uint8(255)
    image = Image.fromarray(stored.repeat(8, axis=0).repeat(8, axis=1).repeat(3, axis=2))

    def pixels(kind):
        tags = Image.Exif()
        tags[0x0112] = orientation
        return load_image(saved(image, kind, exif=tags, quality=95), PREPROCESSING)

    avif, jpeg = pixels("AVIF"), pixels("JPEG")
    assert (avif.width, avif.height) == (jpeg.width, jpeg.height)
    assert np.abs(avif.pixels.astype(int) - jpeg.pixels).max() < 40


def test_the_limit_of_pixels_counts_both_sides():
    with pytest.raises(ImageError, match="64 x 48 pixels"):
        load_image(saved(), PREPROCESSING, max_pixels=64 * 48 - 1)
    assert load_image(saved(), PREPROCESSING, max_pixels=64 * 48).width == 64
