"""Duplicates in a database of real files, whose embeddings are tiny grey images."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import DEMO_PHOTOS, PROJECT
from PIL import Image

from crossfilter_inference.cli import commands
from crossfilter_inference.collection import Collection
from crossfilter_inference.db.connect import writing
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.duplicates import IDENTICAL, SAME_PICTURE, SIMILAR, _stars, find_duplicates
from crossfilter_inference.search import search
from crossfilter_inference.shards.plan import MANIFEST_COLUMNS
from crossfilter_inference.util.files import write_tsv

CASES = PROJECT / "tests" / "data" / "cases" / "duplicates"
PHOTOS = DEMO_PHOTOS[:4]


def embed(path):
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), np.float32).ravel() + 1
    return grey / np.linalg.norm(grey)


class Photos:
    """A folder of photos with the database and manifest of their last run."""

    def __init__(self, folder):
        self.folder, self.database = folder, folder / "x.sqlite"
        self.uuids = {}

    def add(self, name, source, **how):
        """Add a copy of a file, or of it re-encoded with the given options of Pillow."""
        path = self.folder / f"{name}.jpg"
        if how:
            with Image.open(source) as image:
                image.convert("RGB").save(path, "JPEG", **how)
        else:
            shutil.copy(source, path)
        return path

    def run(self, missing=()):
        """Write the database of all photos; the last run does not find those named."""
        tables, rows, listed = Tables("T"), [], []
        for path in sorted(self.folder.glob("*.jpg")):
            status, data = path.stat(), path.read_bytes()
            with Image.open(path) as image:
                width, height = image.size
            rows.append(
                {
                    "UUID": path.stem,
                    "PATH": str(path),
                    "SIZE": status.st_size,
                    "MTIME_NS": status.st_mtime_ns,
                    "DIGEST": hashlib.sha256(data).hexdigest(),
                    "WIDTH": width,
                    "HEIGHT": height,
                    "TAKEN": None,
                    "SHARD": "000001",
                }
            )
            if path.stem not in missing:
                listed.append((path.stem, str(path), status.st_size, status.st_mtime_ns, "000001"))
        with writing(self.database) as connection:
            tables.create(connection, tables.embeddings, tables.images, tables.provenance)
            for table in (tables.embeddings, tables.images):
                connection.execute(table.delete())
            vectors = [{"UUID": row["UUID"], "EMBEDDING": pack_embedding(embed(row["PATH"]))} for row in rows]
            connection.execute(tables.embeddings.insert(), vectors)
            connection.execute(tables.images.insert(), rows)
        state = self.folder / "x" / "T"
        state.mkdir(parents=True, exist_ok=True)
        write_tsv(state / "manifest.tsv", MANIFEST_COLUMNS, listed)

    def find(self, least_cosine=0.97, **how):
        return find_duplicates(Collection(self.database, "T"), least_cosine, 2, **how)

    def groups(self, **how):
        return [(group.kind, [photo.uuid for photo in group.photos]) for group in self.find(**how).groups]


@pytest.fixture
def photos(tmp_path):
    photos = Photos(tmp_path)
    for number, source in enumerate(PHOTOS):
        photos.add(f"photo{number}", source)
    return photos


def test_of_blank_pages_text_and_screenshots_only_identical_files_are_duplicates(photos):
    for path in CASES.glob("*.jpg"):
        photos.add(path.stem[-2:], path)
    photos.run()
    assert photos.groups() == [(IDENTICAL, ["a1", "a2"])]


def test_identical_files_are_found_whatever_the_least_cosine(photos):
    photos.add("copy0", PHOTOS[0])
    photos.run()
    assert photos.groups(least_cosine=1) == [(IDENTICAL, ["copy0", "photo0"])]


def test_similar_photos_are_groups_of_their_own_and_only_if_asked_for(photos):
    for path in CASES.glob("*[ab]?.jpg"):
        photos.add(path.stem[-2:], path)
    photos.add("copy2", PHOTOS[2], quality=40)
    photos.run()
    found = photos.find(similar=True, least_cosine=0.9995)
    groups = [(kind, {photo.uuid for photo in members}) for kind, members in found.groups]
    assert groups[:2] == [(IDENTICAL, {"a1", "a2"}), (SAME_PICTURE, {"photo2", "copy2"})]
    assert (SIMILAR, {"b0", "b1", "b2"}) in groups
    assert found.n_removable == 2
    assert {kind for kind, _ in photos.groups(least_cosine=0.9995)} == {IDENTICAL, SAME_PICTURE}


def test_the_best_photo_of_a_group_comes_first(photos):
    with Image.open(PHOTOS[1]) as image:
        small = image.convert("RGB").reduce(2)
    small.save(photos.folder / "a-small.jpg", quality=95)
    photos.add("b-poor", PHOTOS[1], quality=40)
    photos.add("c-identical", PHOTOS[1])
    photos.run()
    assert photos.groups() == [(SAME_PICTURE, ["c-identical", "photo1", "b-poor", "a-small"])]


@pytest.mark.parametrize("how", ["not in the last run", "removed since", "a folder now", "a broken link"])
def test_missing_photos_are_in_no_group(photos, how):
    gone = photos.add("copy0", PHOTOS[0])
    poor = photos.add("poor0", PHOTOS[0], quality=50)
    photos.run(["copy0", "poor0"] if how == "not in the last run" else [])
    for path in (gone, poor):
        if how != "not in the last run":
            path.unlink()
        if how == "a folder now":
            path.mkdir()
        elif how == "a broken link":
            path.symlink_to(photos.folder / "nowhere.jpg")
    found = photos.find()
    assert found.groups == []
    assert found.left_out["missing"] == 2
    assert photos.groups(similar=True, least_cosine=0.999) == []


def test_the_former_row_of_a_renamed_photo_is_no_duplicate(photos):
    former = photos.add("former", PHOTOS[3])
    photos.run(missing=["former"])
    former.unlink()
    found = photos.find()
    assert found.groups == []
    assert found.left_out == {"missing": 1}


def test_a_photo_that_has_changed_since_the_last_run_is_no_duplicate(photos):
    copy = photos.add("copy0", PHOTOS[0])
    photos.run()
    assert photos.groups() == [(IDENTICAL, ["copy0", "photo0"])]
    shutil.copy(PHOTOS[3], copy)
    found = photos.find()
    assert found.groups == []
    assert found.left_out == {"changed since the last run": 1}


def test_a_photo_with_another_time_and_the_same_contents_is_a_duplicate(photos):
    copy = photos.add("copy0", PHOTOS[0])
    photos.run()
    os.utime(copy, (1, 1))
    assert photos.groups() == [(IDENTICAL, ["copy0", "photo0"])]


def test_a_link_to_a_photo_is_no_duplicate_of_it(photos):
    (photos.folder / "a-link.jpg").symlink_to(photos.folder / "photo0.jpg")
    photos.run()
    assert photos.groups() == []
    photos.add("copy0", PHOTOS[0])
    photos.run()
    assert photos.groups() == [(IDENTICAL, ["copy0", "photo0"])]


def test_a_photo_that_cannot_be_decoded_is_left_out(photos):
    copy = photos.add("copy0", PHOTOS[0], quality=60)
    photos.run()
    assert photos.groups() == [(SAME_PICTURE, ["photo0", "copy0"])]
    status = copy.stat()
    copy.write_bytes(b"\xff\xd8" + bytes(status.st_size - 2))
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = photos.find()
    assert found.groups == []
    assert found.left_out == {"unreadable": 1}


def test_without_a_manifest_the_paths_in_the_database_count(photos):
    photos.add("copy0", PHOTOS[0])
    photos.run()
    (photos.folder / "x" / "T" / "manifest.tsv").unlink()
    assert photos.groups() == [(IDENTICAL, ["copy0", "photo0"])]


def test_more_copies_than_neighbours_are_one_group(photos):
    with Image.open(PHOTOS[0]) as image:
        small = image.convert("RGB").resize((160, 120))
    for number in range(25):
        small.save(photos.folder / f"copy{number:02}.jpg", quality=95, comment=str(number))
    photos.run()
    [(kind, members)] = photos.groups()
    assert kind == SAME_PICTURE
    assert {f"copy{number:02}" for number in range(25)} <= {*members}


def test_groups_do_not_chain():
    near = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2, 4], 4: [3]}
    compared = []

    def is_near(first, second):
        compared.append((first, second))
        return abs(first - second) <= 1

    assert [*_stars(near, is_near)] == [[0, 1], [2, 3], [4]]
    assert len(compared) == len({*compared})


def test_search_marks_missing_photos(photos):
    photos.run(missing=["photo1"])
    (photos.folder / "photo2.jpg").unlink()
    collection = Collection(photos.database, "T")
    found = search(collection, collection.embeddings[0], 10)
    assert {photo.uuid for photo in found if photo.missing} == {"photo1", "photo2"}
    assert len(found) == 4


def test_a_moved_photo_is_where_the_last_run_found_it(photos):
    photos.add("copy0", PHOTOS[0])
    photos.run()
    manifest = Path(photos.folder, "x", "T", "manifest.tsv")
    (photos.folder / "sub").mkdir()
    for name in ("copy0.jpg", "photo0.jpg"):
        (photos.folder / name).rename(photos.folder / "sub" / name)
    manifest.write_text(manifest.read_text().replace("/copy0", "/sub/copy0").replace("/photo0", "/sub/photo0"))
    assert photos.groups() == [(IDENTICAL, ["copy0", "photo0"])]


def test_the_commands_name_classes_and_mark_missing_photos(photos, capsys):
    photos.add("copy0", PHOTOS[0])
    photos.run(missing=["photo1"])
    options = commands.CollectionOptions(photos.database, embedding_type="T")
    sheet = photos.folder / "sheet.html"
    line = commands.duplicates(html=sheet, least_cosine=0.97, collection=options)
    assert line.startswith("groups: 1, with 2 of 5 photos; 1 could be removed; left out: 1 missing; look at: file:")
    assert re.match(r"group 1: identical files\n  \S+/copy0\.jpg  .* kB  copy0\n", capsys.readouterr().out)
    assert "Group 1: identical files" in sheet.read_text()
    commands.duplicates(json=True, least_cosine=0.97, collection=options)
    assert [photo["class"] for photo in json.loads(capsys.readouterr().out)[0]] == [IDENTICAL] * 2
