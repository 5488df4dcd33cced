import io
import os
import resource

import hostile_files
import numpy as np
import pytest
from conftest import DEMO
from PIL import ExifTags, Image, ImageOps

from crossfilter_inference.photos import image as images
from crossfilter_inference.photos.exif import Exif
from crossfilter_inference.photos.image import ImageError, Preprocessing, load_image, read_image_file

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
PHOTO = DEMO / "fish" / "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg"


def saved(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width, height):
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def test_the_square_is_the_middle_of_the_image():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    loaded = load_image(saved(Image.fromarray(wide), "PNG"), PREPROCESSING)
    assert (loaded.pixels == 200).all()
    assert (loaded.width, loaded.height) == (30, 10)
    assert loaded.pixels.shape == (32, 32, 3)


def test_a_smaller_crop_takes_the_middle_of_the_square():
    square = np.zeros((40, 40, 3), np.uint8)
    square[10:30, 10:30] = 200
    half = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.5)
    assert (load_image(saved(Image.fromarray(square), "PNG"), half).pixels == 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = halves(60, 40)
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    loaded = load_image(saved(stored, "PNG", exif=exif), PREPROCESSING)
    assert np.array_equal(loaded.pixels, load_image(saved(upright, "PNG"), PREPROCESSING).pixels)
    assert (loaded.width, loaded.height) == (60, 40)


def test_the_thumbnail_has_192_pixels_on_its_long_side():
    loaded = load_image(PHOTO.read_bytes(), PREPROCESSING)
    with Image.open(io.BytesIO(loaded.thumbnail)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == (192, 128)


def photo(width, height):
    """A demo photo of another size."""
    with Image.open(PHOTO) as image:
        return image.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(monkeypatch, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(photo(3000, 2000), quality=95, exif=exif)
    preprocessing = Preprocessing(size=224, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
    decoded = []
    opaque = images._opaque
    monkeypatch.setattr(images, "_opaque", lambda image: decoded.append(image.size) or opaque(image))
    reduced = load_image(data, preprocessing)
    monkeypatch.setattr(images, "_REDUCED_PIXELS", 10**6)
    full = load_image(data, preprocessing)
    assert [max(size) for size in decoded] == [1500, 3000]
    assert (
        (reduced.width, reduced.height) == (full.width, full.height) == ((3000, 2000), (2000, 3000))[orientation == 6]
    )
    difference = np.abs(reduced.pixels.astype(int) - full.pixels)
    assert difference.mean() < 1
    assert difference.max() < 24


@pytest.mark.parametrize(("side", "decoded"), [(1343, 1343), (1344, 672), (2687, 1344), (2688, 672)])
def test_only_a_large_jpeg_is_decoded_at_a_reduced_size(monkeypatch, side, decoded):
    sizes = []
    opaque = images._opaque
    monkeypatch.setattr(images, "_opaque", lambda image: sizes.append(image.width) or opaque(image))
    load_image(saved(photo(side, side)), PREPROCESSING)
    assert sizes == [decoded]


@pytest.mark.parametrize(("side", "decoded"), [(2687, 2687), (2688, 1344)])
def test_a_reduced_jpeg_has_three_times_the_side_that_the_encoder_takes(monkeypatch, side, decoded):
    sizes = []
    opaque = images._opaque
    monkeypatch.setattr(images, "_opaque", lambda image: sizes.append(image.width) or opaque(image))
    load_image(saved(photo(side, side)), Preprocessing(size=448, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert sizes == [decoded]


@pytest.mark.parametrize("tag", [ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTime])
def test_time_is_read_from_exif(tag):
    exif = Image.Exif()
    place = exif.get_ifd(ExifTags.IFD.Exif) if tag == ExifTags.Base.DateTimeOriginal else exif
    place[tag] = "2021:05:06 07:08:09"
    assert load_image(saved(halves(8, 8), exif=exif), PREPROCESSING).exif.taken == "2021-05-06T07:08:09"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_missing_or_broken_exif_loses_only_the_time(exif):
    loaded = load_image(saved(halves(8, 8), exif=exif), PREPROCESSING)
    assert loaded.exif.taken is None
    assert (loaded.width, loaded.height) == (8, 8)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "LA", "RGBA", "1"])
def test_every_mode_becomes_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    pixels = load_image(saved(halves(64, 64).convert(mode), kind), PREPROCESSING).pixels
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8


def test_16_bit_grey_keeps_its_shades():
    ramp = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    pixels = load_image(saved(Image.fromarray(ramp), "PNG"), PREPROCESSING).pixels
    assert np.abs(pixels[0, :, 0].astype(int) - (ramp[0] >> 8)).max() <= 1


def test_transparent_pixels_are_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (load_image(saved(image, "PNG"), PREPROCESSING).pixels == 255).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a text", "not an image"),
        (PHOTO.read_bytes()[:5000], "damaged"),
        (PHOTO.read_bytes()[:30], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
)
def test_a_bad_file_has_a_reason(data, reason):
    with pytest.raises(ImageError) as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == reason


def test_an_image_with_too_many_pixels_is_not_decoded():
    data = saved(halves(2000, 1001))
    with pytest.raises(ImageError, match="2000 x 1001 pixels, more than the 2 megapixels of max_megapixels") as raised:
        load_image(data, PREPROCESSING, max_pixels=2_000_000)
    assert raised.value.reason == "too large"
    assert load_image(data, PREPROCESSING, max_pixels=2_002_000).width == 2000


@pytest.mark.parametrize(("data", "reason"), hostile_files.BAD.values(), ids=hostile_files.BAD)
def test_a_hostile_file_has_its_reason_and_takes_little_memory(data, reason):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError) as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000, "KB"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore:Image appears to be a malformed MPO file")
@pytest.mark.parametrize("data", hostile_files.STRANGE.values(), ids=hostile_files.STRANGE)
def test_a_strange_file_shows_what_is_in_it(data):
    loaded = load_image(data, PREPROCESSING)
    assert (loaded.width, loaded.height) == (64, 48)
    left, right = loaded.pixels[:, :12].reshape(-1, 3), loaded.pixels[:, 20:].reshape(-1, 3)
    assert np.abs(left - np.array([250, 0, 0])).max() < 8
    assert np.abs(right - np.array([0, 0, 250])).max() < 8


def test_very_large_exif_loses_the_time_but_not_the_orientation():
    turned, time, heap = (0x0112, 3, 1, 6), (0x0132, 2, 20, 50), (0x829A, 5, 2**17, 70)
    exif = hostile_files.exif(turned, time, heap) + b"2021:05:06 07:08:09\0" + bytes(2**21)
    segments = [hostile_files.segment(0xE1, b"Exif\0\0" + exif[i : i + 65_000]) for i in range(6, len(exif), 65_000)]
    loaded = load_image(hostile_files.jpeg_with(*segments), PREPROCESSING)
    assert (loaded.width, loaded.height, loaded.exif) == (48, 64, Exif(orientation=6, taken=None))


def raising(error):
    def function(*arguments, **options):
        raise error

    return function


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("Image.Image.load", MemoryError()),
        ("Image.Image.getexif", MemoryError()),
        ("Image.Image.resize", MemoryError()),
        ("Image.Image.load", OSError("out of memory when reading image file")),
        ("Image.Image.load", RuntimeError("Failed to decode frame 0: Out of memory")),
        ("Image.Image.load", OSError("decoder error -9")),
    ],
)
def test_too_little_memory_has_its_own_reason(monkeypatch, place, error):
    data = saved(halves(64, 64))
    monkeypatch.setattr(f"PIL.{place}", raising(error))
    with pytest.raises(ImageError) as raised:
        load_image(data, PREPROCESSING)
    assert raised.value.reason == "out of memory"
    assert str(raised.value)


def test_a_file_that_does_not_fit_into_memory_has_its_reason(monkeypatch):
    class File(io.BytesIO):
        fileno = staticmethod(lambda: 0)
        read = raising(MemoryError())

    monkeypatch.setattr(images, "open", lambda *_, **__: File(), raising=False)
    monkeypatch.setattr("os.fstat", lambda _: PHOTO.stat())
    with pytest.raises(ImageError) as raised:
        read_image_file(str(PHOTO))
    assert raised.value.reason == "out of memory"


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    path = tmp_path / "sparse.jpg"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ImageError, match=r"1,099,511,627,776 bytes, more than the 268\.435 megapixels of max_mega"):
        read_image_file(str(path))


def test_a_file_may_be_larger_than_its_pixels_where_few_megapixels_are_allowed():
    assert len(read_image_file(str(PHOTO), max_pixels=1000)[0]) > 8 * 1000


def test_a_file_is_read_once_with_its_digest(tmp_path):
    import hashlib

    data, digest = read_image_file(str(PHOTO))
    assert data == PHOTO.read_bytes()
    assert digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("reason", ["missing", "empty", "unreadable"])
def test_an_unreadable_file_has_a_reason(tmp_path, reason):
    path = tmp_path / "x.jpg"
    if reason == "empty":
        path.touch()
    if reason == "unreadable":
        os.mkfifo(path)
    with pytest.raises(ImageError) as raised:
        read_image_file(str(path))
    assert raised.value.reason == reason


def test_hostile_bytes_never_raise_anything_else():
    rng = np.random.default_rng(0)
    data = np.frombuffer(PHOTO.read_bytes(), np.uint8)
    for _ in range(200):
        broken = data.copy()
        broken[rng.integers(0, len(data), 20)] = rng.integers(0, 256, 20)
        try:
            load_image(broken.tobytes(), PREPROCESSING)
        except ImageError:
            continue


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_of_odd_sides_shows_the_same_square(orientation, monkeypatch):
    x, y = np.meshgrid(np.arange(2307), np.arange(1301))
    image = Image.fromarray((127 + 100 * np.sin(x / 20) * np.cos(y / 20)).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    preprocessing = Preprocessing(size=224, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.99)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(image, "PNG", exif=exif))))
    full = load_image(saved(upright, "PNG"), preprocessing).pixels.astype(int)
    monkeypatch.setattr(images, "_REDUCED_SIDES", 1)
    monkeypatch.setattr(images, "_REDUCED_PIXELS", 300)
    reduced = load_image(saved(image, quality=95, exif=exif), preprocessing).pixels.astype(int)
    assert np.abs(reduced - full).mean() < 0.4


def test_every_fact_is_recorded_by_its_name():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.DateTime] = 6, "2021:05:06 07:08:09"
    facts = load_image(saved(halves(60, 40), exif=exif), PREPROCESSING).facts
    unknown = dict.fromkeys(["taken_offset", "latitude", "longitude", "altitude", "camera"])
    assert facts == {"width": 40, "height": 60, "orientation": 6, "taken": "2021-05-06T07:08:09", **unknown}
