"""A library as a camera and a phone leave it: one command brings in every photo, and counts every other file."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from pathlib import Path

import pillow_heif
import pytest
from conftest import DEMO_PHOTOS, PROJECT
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from raw_files import dng

pytestmark = pytest.mark.slow
pillow_heif.register_heif_opener()
pillow_jxl = pytest.importorskip("pillow_jxl")
COMMAND = "from crossfilter_inference.cli.commands import main; main()"
SETTINGS = ("--output_embeddings_db", "photos.sqlite", "--embedding_type", "EFFICIENTNET_LITE0")
# Paths of photos, with the format that Pillow writes.
PHOTOS = {
    "DCIM/100CANON/IMG_0001.JPG": "JPEG",
    "DCIM/101CANON/IMG_0001.JPG": "JPEG",
    "DCIM/100CANON/IMG_20210506_070809.jpeg": "JPEG",
    "iPhone/IMG_0002.HEIC": "HEIF",
    "iPhone/IMG_0003.jpg": "HEIF",
    "iPhone/IMG_0004.JPG": "JPEG",  # of a live photo
    "iPhone/IMG_E0004.JPG": "JPEG",  # edited
    "Bildschirmfotos/Bildschirmfoto 2021-05-06 07.08.09.png": "PNG",
    "Urlaub 2021/\u00dcber den Wolken.webp": "WEBP",
    unicodedata.normalize("NFD", "Urlaub 2021/Caf\u00e9.tif"): "TIFF",
    "Urlaub 2021/animation.gif": "GIF",
    "alt/scan 1.bmp": "BMP",
    "alt/scan 2.jp2": "JPEG2000",
    "alt/neu.avif": "AVIF",
    "alt/neu.jxl": "JXL",
    "iPhone/IMG_0005.DNG": "DNG",
}
OTHERS = {
    "iPhone/IMG_0004.MOV": b"\0\0\0\x14ftypqt  ",
    "iPhone/IMG_E0004.AAE": b"<?xml",
    "alt/VID_0001.mp4": b"\0\0\0\x18ftypmp42",
    "alt/scan 1.bmp.supplemental-metadata.json": b'{"photoTakenTime": {"timestamp": "1620284889"}}',
    "alt/IMG_0001.JPG.json": b"{}",
    "alt/notes.txt": b"notes",
    "DCIM/.DS_Store": b"\0",
}
EXCLUDED = {"DCIM/100CANON/._IMG_0001.JPG": b"\0\5\x16\7", "alt/@eaDir/scan 1.bmp": b"BM", "alt/._neu.avif": b"\0"}
REJECTED = {"alt/leer.jpg": b""}
DAMAGED = {"alt/IMG_0009.CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(500)}


def fill(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Fairphone 3"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:08:09 10:11:12"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            ExifTags.GPS.GPSLatitude: (IFDRational(52), IFDRational(30), IFDRational(0)),
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLongitude: (IFDRational(13), IFDRational(15), IFDRational(0)),
            ExifTags.GPS.GPSLongitudeRef: "W",
        }
    )
    for number, (name, kind) in enumerate(PHOTOS.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"exif": exif.tobytes()} if "IMG_000" in name else {}
        with Image.open(DEMO_PHOTOS[number]) as image:
            if kind == "DNG":
                path.write_bytes(dng(image, preview=image))
                continue
            image.convert("P" if kind == "GIF" else "RGB").save(path, kind, **options)
    for name, data in (OTHERS | EXCLUDED | REJECTED | DAMAGED).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    whole = (folder / "DCIM/100CANON/IMG_0001.JPG").read_bytes()
    (folder / "alt/halb.jpg").write_bytes(whole[: len(whole) // 2])


def run(folder: Path, *options: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    fill(folder / "Bilder")
    (folder / "leer").mkdir()
    return folder, run(folder / "leer", "../Bilder", *SETTINGS)


def rows(folder: Path) -> dict[str, tuple]:
    database = sqlite3.connect(folder / "leer" / "photos.sqlite")
    query = (
        "SELECT PATH, UUID, TAKEN, TAKEN_FROM, LATITUDE, LONGITUDE, CAMERA, SEMANTIC_EMBEDDING_UMAP_LATITUDE"
        " FROM EFFICIENTNET_LITE0_IMAGES JOIN EFFICIENTNET_LITE0_EMBEDDINGS USING (UUID)"
        " JOIN EFFICIENTNET_LITE0_UMAP_HAVERSINE USING (UUID)"
    )
    root = f"{folder / 'Bilder'}/"
    return {path.removeprefix(root): values for path, *values in database.execute(query)}


def test_every_usable_photo_has_a_row_with_its_name_time_and_position(library):
    folder, _ = library
    found = rows(folder)
    assert found.keys() == PHOTOS.keys()
    assert len({uuid for uuid, *_ in found.values()}) == len(PHOTOS)
    for name, (_, taken, source, latitude, longitude, camera, position) in found.items():
        assert -90 <= position <= 90
        if name.endswith(".DNG"):
            assert (taken, source, camera) == ("2021-05-06T07:08:09", "exif", "Fairphone FP3")
        elif "IMG_000" in name:
            assert (taken, source, latitude, longitude, camera) == (
                "2021-08-09T10:11:12",
                "exif",
                52.5,
                -13.25,
                "Fairphone 3",
            ), name
    for name in ("DCIM/100CANON/IMG_20210506_070809.jpeg", "Bildschirmfotos/Bildschirmfoto 2021-05-06 07.08.09.png"):
        assert found[name][1:3] == ["2021-05-06T07:08:09", "name"] or found[name][1:3] == (
            "2021-05-06T07:08:09",
            "name",
        )


def test_a_sidecar_gives_the_time(library):
    folder, _ = library
    assert rows(folder)["alt/scan 1.bmp"][1:3] == ["2021-05-06T07:08:09", "sidecar"]


def test_every_other_file_is_counted_with_its_kind(library):
    _, output = library
    assert "names: any, because no file name is a UUID" in output
    assert "rejected files: 1 (1 empty)" in output
    assert "excluded files: 3 (2 ._*, 1 @eaDir)" in output
    [others] = [line.partition("other files, ignored: ")[2] for line in output.splitlines() if "ignored: " in line][:1]
    assert others.startswith("6 (1 .aae, 1 .json, 1 .mov, 1 .mp4, 1 .txt, ...)")
    assert "; sidecars: 1; " in output
    assert "failed:   2 photos (2 damaged), see " in output


def test_the_next_run_has_nothing_to_do_and_needs_no_option(library):
    folder, _ = library
    before = rows(folder)
    assert "Nothing to be done" in run(folder / "leer", "../Bilder", *SETTINGS)
    assert rows(folder) == before


def test_a_renamed_folder_moves_nothing(library, tmp_path):
    folder, _ = library
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    folder = tmp_path / "copy"
    before = json.loads(json.dumps(rows(library[0])))
    (folder / "Bilder" / "Urlaub 2021").rename(folder / "Bilder" / "Ferien 2021")
    assert "0 photos in this run" in run(folder / "leer", "../Bilder", *SETTINGS)
    after = rows(folder)
    renamed = {name.replace("Urlaub", "Ferien"): values for name, values in before.items()}
    assert json.loads(json.dumps(after)) == renamed
