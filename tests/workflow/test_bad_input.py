"""Bad input ends in one clear line, changes nothing, and never stops the good photos."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from conftest import DEMO
from PIL import Image

from crossfilter_inference.photos.failures import advice
from crossfilter_inference.shards.plan import FAILED_COLUMNS
from crossfilter_inference.util.files import read_tsv


def snapshot(folder: Path) -> dict[str, int]:
    """Every file of a folder but Snakemake's own records, with its time."""
    files = (path for path in folder.rglob("*") if ".snakemake" not in path.parts)
    return {str(path): path.lstat().st_mtime_ns for path in files}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_dir": "no/such/folder"}, "/collection/no/such/folder' (No such file or directory)"),
        (
            {"input_dir": "empty"},
            "/empty' (rejected files: 0; other files, ignored: 1 (1 .txt)); set it to a folder",
        ),
        ({"encoders": {"COLOUR": {"backend": "no.py"}}}, "encoders.COLOUR.backend: 'no.py' does not exist"),
        ({"shard_sise": 5}, "shard_sise: unknown key (value 5); did you mean shard_size?"),
        ({"umap": {"n_neighbours": 5}}, "umap.n_neighbours: unknown key (value 5); did you mean n_neighbors?"),
        ({"shard_size": 0}, "shard_size: 0 is out of bounds; it must be from 1 to 1000000: Photos per embedding job"),
        ({"embedding_type": "CLOUR"}, "embedding_type: 'CLOUR' is not configured; did you mean COLOUR?; choose one of"),
        ({"output_embeddings_db": "photos"}, "output_embeddings_db: cannot write to 'photos' (it is a folder)"),
        ({"output_embeddings_db": "config.yaml/x.sqlite"}, "cannot write to 'config.yaml/x.sqlite' ('config.yaml' is "),
        ({"output_embeddings_db": "config.yaml"}, "(the file is not an SQLite database)"),
        ({"output_embeddings_db": "locked/x.sqlite"}, "no permission to write in 'locked'"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(make_collection, as_user, config, message):
    collection = make_collection(1, **config)
    (collection.folder / "empty").mkdir()
    (collection.folder / "empty" / "readme.txt").touch()
    (collection.folder / "locked").mkdir(mode=0o500)
    before = snapshot(collection.folder)
    done = collection.snakemake(**as_user)
    assert done.returncode == 1
    last = done.stdout.strip().splitlines()[-1]
    assert message in last
    assert "Traceback" not in done.stdout
    assert "Job stats" not in done.stdout
    assert snapshot(collection.folder) == before


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_every_good_photo_is_embedded_and_each_bad_one_is_listed_once(make_collection, as_user):
    collection = make_collection(4)
    photos = collection.folder / "photos"
    good = sorted(photos.glob("*.jpg"))
    source = DEMO / "fish" / "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg"

    def uuid(number: int) -> str:
        return f"00000000-0000-4000-8000-{number:012x}"

    def path(number: int, suffix: str = ".jpg") -> Path:
        return photos / f"{uuid(number)}{suffix}"

    with Image.open(source) as image:
        image.save(path(0xA1), "PNG")
        image.convert("CMYK").save(path(0xA2), "JPEG")
        image.convert("L").save(path(0xA3), "JPEG")
        image.save(path(0xA4, ".JPEG"), "JPEG")
    bare = uuid(0xA5).replace("-", "")
    (photos / "album").mkdir()
    shutil.copy(source, photos / "album" / f"{bare}.jpg")
    (photos / "loop").symlink_to(photos)
    expected = {path.stem for path in good} | {uuid(n) for n in (0xA1, 0xA2, 0xA3, 0xA4)}
    expected.add(bare)

    path(0xB1).write_bytes(source.read_bytes()[:5000])
    path(0xB2).touch()
    path(0xB3).write_text("not a photo, but a text\n")
    os.mkfifo(path(0xB4))
    path(0xB5).write_bytes(bomb())
    shutil.copy(source, photos / "holiday.jpg")
    (photos / "zz").mkdir()
    shutil.copy(source, photos / "zz" / f"{uuid(0xA1).upper()}.jpeg")
    shutil.copy(source, photos / "zz" / f"{uuid(0xA5).upper()}.jpg")
    shutil.copy(source, path(0xB6)).chmod(0)
    path(0xB7).symlink_to(photos / "nowhere.jpg")
    path(0xB8, ".png").touch()

    done = collection.snakemake(**as_user)
    assert done.returncode == 0, done.stdout
    assert "other files, ignored: 1 (1 .png)" in done.stdout
    assert collection.embeddings().keys() == expected

    failures = dict(collection.sql("SELECT UUID, REASON FROM {T}_FAILURES"))
    assert failures == {uuid(0xB1): "damaged", uuid(0xB3): "not an image", uuid(0xB5): "too large"}
    lines = (collection.state / "rejected.tsv").read_text().splitlines()[1:]
    rejected = {Path(line.split("\t")[0]).relative_to(photos): line.split("\t")[1] for line in lines}
    assert {str(name): reason for name, reason in rejected.items()} == {
        f"{uuid(0xB2)}.jpg": "empty",
        f"{uuid(0xB4)}.jpg": "not a regular file",
        "holiday.jpg": "not a UUID",
        f"zz/{uuid(0xA1).upper()}.jpeg": f"the same UUID as {path(0xA1)}",
        f"zz/{uuid(0xA5).upper()}.jpg": f"the same UUID as {photos}/album/{bare}.jpg",
        f"{uuid(0xB6)}.jpg": "unreadable (Permission denied)",
        f"{uuid(0xB7)}.jpg": "unreadable (No such file or directory)",
    }
    found = sum(1 for file in photos.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    assert found == len(expected) + len(failures) + len(rejected)
    assert f"photos: {len(expected) + len(failures)}, new: " in done.stdout
    assert (
        "rejected files: 7 (2 the same UUID, 2 unreadable, 1 empty, 1 not a UUID, 1 not a regular file)" in done.stdout
    )
    assert (
        "failed:   3 photos (1 damaged, 1 not an image, 1 too large), see results/photos/COLOUR/failed.tsv"
        in done.stdout
    )
    for reason in ("damaged", "not an image", "too large"):
        assert f"          {reason}: {advice(reason)}\n" in done.stdout
    listed = [*read_tsv(collection.state / "failed.tsv", FAILED_COLUMNS)]
    assert listed == [
        [*row] for row in collection.sql("SELECT PATH, REASON, MESSAGE, UUID FROM {T}_FAILURES ORDER BY 1")
    ]
    for path, _, message, _ in listed:
        assert f"          {os.path.relpath(path, photos)}: {message}\n" in done.stdout
    assert "rejected: 7 files, see results/photos/COLOUR/rejected.tsv" in done.stdout
    assert collection.dry_run(**as_user) == {}


def test_a_collection_without_usable_photos_reports_it(make_collection):
    collection = make_collection(0, reproject_umap_embeddings=True)
    (collection.folder / "photos" / "00000000-0000-4000-8000-000000000000.jpg").write_text("no photo")
    done = collection.snakemake()
    assert done.returncode == 1
    assert "has no embeddings to map; see the table COLOUR_FAILURES for the reasons" in done.stdout
    assert "Traceback" not in done.stdout
    assert collection.sql("SELECT REASON FROM {T}_FAILURES") == [("not an image",)]


def test_paths_with_spaces_quotes_and_foreign_bytes_work(make_collection):
    collection = make_collection(3, input_dir="my 'photos'", output_embeddings_db="my results/my $photos.sqlite")
    strange = collection.folder / os.fsdecode(b"my 'photos'/caf\xe9 \r \t\n\"x\"")
    strange.parent.mkdir()
    (collection.folder / "photos").rename(strange)
    collection.run()
    database = collection.folder / "my results" / "my $photos.sqlite"
    assert collection.sql("SELECT count(*) FROM {T}_EMBEDDINGS", database) == [(3,)]
    [(path,), *_] = collection.sql("SELECT PATH FROM {T}_IMAGES", database)
    assert "/caf%E9%20%0D%20%09%0A%22x%22/" in path
    assert collection.dry_run() == {}


@pytest.mark.slow
def test_a_key_that_a_configuration_file_sets_twice_is_refused(three_shards):
    three_shards.take_back()
    before, mine = snapshot(three_shards.folder), three_shards.folder / "mine.yaml"
    mine.write_text("umap:\n  radius: 1\n  radius: 2\n")
    done = three_shards.snakemake("-n", "--configfile", "config.yaml", "mine.yaml")
    assert done.returncode == 1
    assert "mine.yaml' sets 'radius' twice (lines 2 and 3); remove one of them. Nothing was changed" in done.stdout
    assert "Traceback" not in done.stdout
    mine.unlink()
    assert snapshot(three_shards.folder) == before
