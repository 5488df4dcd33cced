"""Camera RAW and JPEG XL, whose packages are extras."""

import io

import numpy as np
import pytest
from conftest import DEMO_PHOTOS, needs
from hostile_files import saved
from PIL import ExifTags, Image
from raw_files import dng

from crossfilter_inference.config import check_config
from crossfilter_inference.photos import names
from crossfilter_inference.photos.image import ImageError, Preprocessing, load_exif, load_image
from crossfilter_inference.photos.scan import Scan
from crossfilter_inference.run import prepare

PREPROCESSING = Preprocessing(size=64, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
QUARTERS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}


@pytest.fixture(scope="module")
def photo():
    with Image.open(DEMO_PHOTOS[0]) as image:
        return image.convert("RGB").resize((960, 720))


def difference(one: bytes, other: bytes) -> float:
    """1 - correlation of the pixels that an encoder would get."""
    first, second = (load_image(data, PREPROCESSING).pixels.astype(float).ravel() for data in (one, other))
    return 1 - np.corrcoef(first, second)[0, 1]


@needs("rawpy")
@pytest.mark.parametrize("orientation", [*QUARTERS])
@pytest.mark.parametrize("has_preview", [True, False])
def test_a_raw_photo_is_read_upright_from_its_preview_or_its_sensor(photo, orientation, has_preview):
    turn = QUARTERS[orientation]
    upright = photo if turn is None else photo.transpose(turn)
    data = dng(photo, orientation, photo if has_preview else None)
    assert difference(data, saved(upright, "PNG")) < 0.005
    loaded, scale = load_image(data, PREPROCESSING), 1 if has_preview else 2
    assert (loaded.width * scale, loaded.height * scale) == upright.size
    for exif in (loaded.exif, load_exif(data)):
        assert (exif.camera, exif.taken) == ("Fairphone FP3", "2021-05-06T07:08:09")


@needs("rawpy")
def test_a_preview_that_is_too_small_is_not_used(photo):
    data = dng(photo, preview=Image.new("RGB", (320, 240), "red"))
    assert difference(data, saved(photo, "PNG")) < 0.005


@needs("rawpy")
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99])
def test_a_truncated_raw_file_fails(photo, share):
    data = dng(photo)
    with pytest.raises(ImageError) as raised:
        load_image(data[: int(share * len(data))], PREPROCESSING)
    assert raised.value.reason == "damaged"


@needs("rawpy")
def test_a_truncated_preview_fails(photo):
    data = dng(photo, preview=photo)
    end = data.index(b"\xff\xd9", data.index(b"\xff\xda"))
    with pytest.raises(ImageError) as raised:
        load_image(data[: end - 20_000] + bytes(20_000) + data[end:], PREPROCESSING)
    assert raised.value.reason == "damaged"


def test_without_the_package_a_raw_photo_is_named_with_what_would_read_it(photo, without_extras):
    for data in (dng(photo), dng(photo, preview=photo)):
        with pytest.raises(ImageError, match=r"^DNG, .*; run pip install 'crossfilter-inference\[raw\]'"):
            load_image(data, PREPROCESSING)


@pytest.fixture
def jxl():
    plugin = pytest.importorskip("pillow_jxl.JpegXLImagePlugin", reason="not installed: pillow_jxl")

    def write(picture, **how):
        file = io.BytesIO()
        picture.save(file, "JXL", **how)
        return file.getvalue()

    assert plugin
    return write


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("how", [{"quality": 90}, {"lossless": True}])
def test_jpeg_xl_is_read_as_its_pixels_are(photo, jxl, mode, how):
    picture = photo.convert(mode)
    assert difference(jxl(picture, **how), saved(picture, "PNG")) < 0.005


def test_the_exif_of_jpeg_xl_does_not_turn_it(photo, jxl):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "FP3"
    data = jxl(photo, lossless=True, exif=exif.tobytes())
    assert difference(data, saved(photo, "PNG")) < 0.005
    assert load_exif(data).camera == "FP3"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_jpeg_xl_fails(photo, jxl, share):
    data = jxl(photo, quality=90)
    with pytest.raises(ImageError) as raised:
        load_image(data[: int(share * len(data))], PREPROCESSING)
    assert raised.value.reason == "damaged"


def test_without_the_package_jpeg_xl_is_named_with_what_would_read_it(without_extras):
    with pytest.raises(ImageError, match=r"^JPEG XL; run pip install 'crossfilter-inference\[jxl\]'"):
        load_image(b"\xff\x0a" + bytes(100), PREPROCESSING)


def test_photos_that_need_a_package_are_photos_once_it_is_installed(tmp_path, monkeypatch):
    config = check_config({"input_dir": [str(tmp_path)], "output_embeddings_db": str(tmp_path / "x.sqlite")})
    any_name = config.model_copy(update={"names": "any"})
    scan = Scan()
    scan.n_others.update([".cr2", ".dng", ".cr2", ".jxl", ".mov"])
    monkeypatch.setattr(names.Extra, "is_installed", True)
    assert {".cr2", ".jxl"} <= {*any_name.extensions}
    monkeypatch.setattr(names.Extra, "is_installed", False)
    assert {".cr2", ".jxl"}.isdisjoint(any_name.extensions)
    assert prepare._unreadable(any_name, scan) == [
        "left out: 1 file of JPEG XL; run pip install 'crossfilter-inference[jxl]' to include it",
        "left out: 3 files of camera RAW; run pip install 'crossfilter-inference[raw]' to include them",
    ]
    assert prepare._unreadable(config, scan) == []
