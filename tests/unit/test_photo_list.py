"""A list of photos, to which commands are restricted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from verified import UUID

from crossfilter_inference import Collection
from crossfilter_inference.cli import commands
from crossfilter_inference.errors import InputError
from crossfilter_inference.search import read_photo_list

pytest_plugins = "verified"

CHOSEN = [UUID(4), UUID(1), UUID(6)]


def options(collection):
    return commands.CollectionOptions(
        output_embeddings_db=collection.database, configfile=[collection.root / "config.yaml"], embedding_type="T"
    )


def paths(collection):
    return [str(collection.photos / f"{uuid}.jpg") for uuid in CHOSEN]


LISTS = {
    "paths": lambda collection: "".join(f"{path}\n" for path in paths(collection)),
    "UUIDs in any spelling": lambda collection: f"{UUID(4).upper()}\n\n{UUID(1).replace('-', '')}\r\n  {UUID(6)}",
    "both, with a byte order mark": lambda collection: f"\ufeff{UUID(4)}\n{paths(collection)[1]}\n{UUID(6)}\n",
    "CSV of the globe": lambda collection: (
        "path,uuid,taken\r\n"
        + "".join(f'"{path}, ""x""",{uuid},\r\n' for path, uuid in zip(paths(collection), CHOSEN, strict=True))
    ),
    "CSV of labels": lambda collection: "UUID,LABEL\n" + "".join(f"{uuid},beach\n" for uuid in CHOSEN),
    "JSON of the globe": lambda collection: json.dumps([{"path": "x", "uuid": uuid} for uuid in CHOSEN]),
    "JSON of paths": lambda collection: json.dumps(paths(collection)),
}


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "list").write_text(text, newline="")
        return tmp_path / "list"

    return write


@pytest.fixture
def opened(collection):
    return Collection(collection.database, "T")


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_many_kinds_are_read(collection, opened, write, kind):
    assert read_photo_list(opened, write(LISTS[kind](collection))) == CHOSEN


def test_relative_paths_and_decomposed_names_are_found(collection, opened, write, monkeypatch):
    monkeypatch.chdir(collection.photos)
    assert read_photo_list(opened, write(f"{UUID(4)}.jpg\n./{UUID(1)}.jpg\n")) == CHOSEN[:2]


def test_a_file_name_is_enough_if_one_photo_has_it(collection, opened, write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_photo_list(opened, write(f"{UUID(4)}.jpg\nphotos/{UUID(1)}.jpg\n")) == CHOSEN[:2]
    first, second, third = (f"/{folder}/IMG_1.jpg" for folder in ("trip", "trip to Rome", "home"))
    photos = opened.photos([UUID(1), UUID(4), UUID(6)])
    moved = {uuid: replace(photos[uuid], path=path) for uuid, path in zip(photos, (first, second, third), strict=True)}
    monkeypatch.setattr(opened, "photos", lambda uuids: moved)
    assert read_photo_list(opened, write("home/IMG_1.jpg\ntrip/IMG_1.jpg\n")) == [UUID(6), UUID(1)]
    with pytest.raises(InputError, match=r"entry 1 of '.*list', 'IMG_1\.jpg', is the name of 3 photos; give paths"):
        read_photo_list(opened, write("IMG_1.jpg\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{UUID(1)}\nnowhere.jpg\n",
            r"entry 2 of '.*list', 'nowhere\.jpg', is no photo of the collection; give paths",
        ),
        (f"{UUID(7)}\n", "entry 1 of .* is no photo of the collection"),  # it failed
        ("", "lists no photos; give paths or UUIDs, one per line"),
        ("uuid\n", "lists no photos"),
        ("[]", "lists no photos"),
        ("[{}]", r"entry 1 of '.*list', '\[\{\}\]', is no photo"),
        ("[1", r"entry 1 of '.*list', '\[1', is no photo"),
        ("\x1b[31mred\n", r"entry 1 of '.*list', '\\x1b\[31mred', is no photo"),
    ],
)
def test_what_is_no_list_is_refused_in_one_line(opened, write, text, message):
    with pytest.raises(InputError, match=f"--photos: .*{message}"):
        read_photo_list(opened, write(text))


def test_a_list_that_cannot_be_read_is_one_line(opened, tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match=r"--photos: .* cannot be read"):
            read_photo_list(opened, path)


def test_search_finds_only_photos_of_the_list_and_the_query_need_not_be_one(collection, write, capsys):
    listed = write("\n".join(CHOSEN))
    for query, expected in ((UUID(0), {*CHOSEN}), (UUID(1), {*CHOSEN} - {UUID(1)})):
        summary = commands.search(uuid=query, n=7, photos=listed, json=True, collection=options(collection))
        assert {photo["uuid"] for photo in json.loads(capsys.readouterr().out)} == expected
        assert summary == f"{len(expected)} of 3 photos"


def test_exports_hold_only_photos_of_the_list_and_neighbours_among_them(collection, opened, write, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    files = {name: tmp_path / f"x.{name}" for name in ("npy", "parquet", "atlas")}
    commands.export(**files, photos=write("\n".join(CHOSEN)), collection=options(collection))
    chosen = sorted(CHOSEN)
    rows = opened.embeddings[[opened.uuids.index(uuid) for uuid in chosen]]
    assert np.array_equal(np.load(files["npy"]), rows)
    assert (tmp_path / "x.uuids.txt").read_text().split() == chosen
    whole = opened.read_map()
    for photo in pq.read_table(files["parquet"]).to_pylist():
        row = opened.uuids.index(photo["UUID"])
        near = [opened.uuids[other] for other in whole.neighbours[row]]
        assert photo["NEIGHBOURS"] == [uuid for uuid in near if uuid in chosen]
        assert np.allclose(
            photo["SIMILARITIES"],
            [value for uuid, value in zip(near, whole.similarity[row], strict=True) if uuid in chosen],
        )
        assert photo["LATITUDE"] == whole.latitude[row]
        assert photo["PATH"] == whole.paths[row]
    atlas = pq.read_table(files["atlas"]).to_pylist()
    assert [photo["UUID"] for photo in atlas] == chosen
    for photo in atlas:
        near = [chosen[number] for number in photo["NEIGHBOURS"]["ids"]]
        row = opened.uuids.index(photo["UUID"])
        assert near == [opened.uuids[other] for other in whole.neighbours[row] if opened.uuids[other] in chosen]
        assert len(photo["NEIGHBOURS"]["distances"]) == len(near)
        assert photo["THUMBNAIL"]["bytes"][:2] == b"\xff\xd8"


def test_duplicates_are_found_only_among_photos_of_the_list(collection, write, capsys):
    everything = {"similar": True, "least_cosine": -1, "json": True, "collection": options(collection)}
    for photos in ([UUID(0), UUID(1), UUID(2)], [UUID(2), UUID(5)], [UUID(3)]):
        commands.duplicates(**everything, photos=write("\n".join(photos)))
        found = {photo["uuid"] for group in json.loads(capsys.readouterr().out) for photo in group}
        assert found == ({*photos} if len(photos) > 1 else set())


def test_keeping_an_unknown_photo_is_an_error(opened):
    with pytest.raises(ValueError, match="no photos of the collection"):
        opened.keep([UUID(0), "x"])
