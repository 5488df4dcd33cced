"""Search, duplicates and export, as their users run them: on the demo after its first run."""

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from conftest import DEMO, DEMO_PHOTOS, PROJECT, demo_photo, new_collection, page_data
from PIL import Image, ImageDraw

from crossfilter_inference.collection import Collection
from crossfilter_inference.config import read_config
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.image import THUMBNAIL_SIDE
from crossfilter_inference.search import find_path, find_uuid, search


def opened(collection, **changes):
    """Open a collection as the scripts do."""
    config = read_config([collection.folder / "config.yaml"], changes)
    return Collection(collection.database, config.embedding_type, device=config.device, labels=config.labels)


@pytest.fixture(scope="module")
def kinds():
    with (DEMO / "photos.csv").open(newline="") as file:
        return {row["id"]: row["label"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_the_first_three_photos_are_of_the_kind_of_the_query(demo_run, kinds):
    collection = opened(demo_run)
    right = [
        kinds[photo.uuid] == kinds[uuid]
        for uuid, row in zip(collection.uuids, collection.embeddings, strict=True)
        for photo in search(collection, row, 3, without=uuid)
    ]
    assert len(right) == 3 * 62
    assert np.mean(right) >= 0.7


def test_a_search_is_exact_and_ties_are_in_order_of_uuid(demo_run):
    collection = opened(demo_run)
    collection.embeddings[[5, 3, 9]] = collection.embeddings[3]
    found = search(collection, collection.embeddings[3], 62)
    similarity = collection.embeddings @ collection.embeddings[3]
    order = sorted(range(62), key=lambda row: (-similarity[row], collection.uuids[row]))
    assert [photo.uuid for photo in found] == [collection.uuids[row] for row in order]
    assert [photo.uuid for photo in found[:3]] == [collection.uuids[row] for row in (3, 5, 9)]
    assert [photo.uuid for photo in search(collection, collection.embeddings[3], 1)] == [collection.uuids[3]]


@pytest.mark.slow
def test_by_image_file_by_uuid_and_as_a_contact_sheet(demo_run, tmp_path):
    uuid = "5237ab3d-4df8-52aa-ae37-fa74dffefb1a"
    by_uuid = demo_run.script("search.py", "--uuid", uuid.upper(), "--n", "4", "--json")
    by_image = demo_run.script("search.py", "--image", str(demo_photo(uuid)), "--n", "5", "--json")
    assert by_uuid.returncode == by_image.returncode == 0, by_uuid.stderr + by_image.stderr
    same, *others = json.loads(by_image.stdout)
    assert (same["uuid"], round(same["similarity"], 5)) == (uuid, 1)
    found, paths = json.loads(by_uuid.stdout), dict(demo_run.sql("SELECT UUID, PATH FROM {T}_IMAGES"))
    assert [photo["uuid"] for photo in found] == [photo["uuid"] for photo in others]
    for photo, other in zip(found, others, strict=True):
        assert photo["similarity"] == pytest.approx(other["similarity"], abs=1e-5)
        assert photo["path"] == paths[photo["uuid"]]
    sheet = tmp_path / "sheet.html"
    done = demo_run.script("search.py", "--uuid", uuid[:8], "--n", "4", "--html", str(sheet))
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [photo["uuid"] for photo in found]
    page = sheet.read_text()
    assert page.count("data:image/jpeg;base64,") == 5, "the query photo, and four results"
    shown = [uuid, *(photo["uuid"] for photo in found)]
    assert re.findall(r'class="uuid">(.*?)<', page) == shown
    assert re.findall(r'href="(.*?)"', page)[1:] == [Path(paths[uuid]).as_uri() for uuid in shown]
    copy = shutil.copy(demo_photo(uuid), tmp_path / "a copy.jpg")
    demo_run.script("search.py", "--image", str(copy), "--n", "1", "--html", str(sheet))
    assert sheet.read_text().count("data:image/jpeg;base64,") == 2
    assert ">a copy.jpg<" in sheet.read_text()


def test_a_query_by_uuid_loads_neither_torch_nor_umap(demo_run):
    code = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    assert not {'torch', 'transformers', 'umap', 'numba', 'pandas'} & set(sys.modules)\n"
    )
    script = PROJECT / "scripts" / "search.py"
    start = f"import sys; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(script.parent)!r})\n{code}"
    command = [sys.executable, "-c", start, script, "--configfile", "config.yaml", "--uuid", "5237ab3d"]
    done = subprocess.run(command, cwd=demo_run.folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--text", "a windmill"),
            "'windmill' is not one of the 3,245 words that EFFICIENTNET_LITE0 knows; the nearest ",
        ),
        (("--image", "nowhere.jpg"), "--image: 'nowhere.jpg' cannot be used (No such file"),
        (("--uuid", "5"), "--uuid: 3 photos match '5', for example "),
        (
            ("--uuid", "ffffffff"),
            "--uuid: none of the 62 photos in 'results/photos.sqlite' matches 'ffffffff'; check the UUID",
        ),
        (("--uuid", "hello"), "--uuid: 'hello' is not a UUID or a UUID prefix"),
        (
            ("--uuid", "x", "--embedding_type", "SIGLIP2"),
            "has no embeddings of type SIGLIP2; run the workflow, or name another",
        ),
        (
            ("--uuid", "x", "--output_embeddings_db", "y.sqlite"),
            "'y.sqlite' does not exist; run the workflow, or name ",
        ),
    ],
)
def test_an_impossible_search_ends_in_one_line(demo_run, options, message):
    done = demo_run.script("search.py", *options)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert done.stdout == ""


def test_photos_are_found_by_the_end_of_their_path(demo_run):
    collection = Collection(demo_run.database)
    uuid = collection.uuids[7]
    path = Path(collection.photos([uuid])[uuid].path)
    for text in (path, path.name, f"{path.parent.name}/{path.name}", str(path).upper(), f"./{path.name}"):
        assert find_path(collection, str(text)) == uuid
    with pytest.raises(InputError, match=r"--path: none of the 62 photos in .* matches 'x.jpg'; check the path"):
        find_path(collection, "x.jpg")
    assert find_path(collection, path.name[5:]) == uuid, "the end need not begin with a name"


def test_a_photo_that_failed_is_named_with_the_reason(demo):
    connection = sqlite3.connect(demo.database)
    connection.execute(
        "INSERT INTO EFFICIENTNET_LITE0_FAILURES VALUES ('x', '/a/DSC 1.ARW', 'damaged', 'it is broken', '')"
    )
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match=r"--path: /a/DSC 1\.ARW is not in .*, because it failed: it is broken"):
        find_path(Collection(demo.database), "dsc 1.arw")


def test_uuids_are_found_in_any_spelling(demo_run):
    collection = opened(demo_run)
    uuid = collection.uuids[7]
    for spelling in (uuid, uuid.upper(), uuid.replace("-", ""), uuid[:12]):
        assert find_uuid(collection, spelling) == uuid
    with pytest.raises(InputError, match="'' is not a UUID"):
        find_uuid(collection, "")


# ---- duplicates ------------------------------------------------------------------------------------------------


def another_image(seed):
    """Draw a unique picture."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 256, (random.integers(2, 9), random.integers(2, 9), 3)).astype(np.uint8)
    image = Image.fromarray(ground).resize((320, 240), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(3, 25)):
        colour = tuple(random.integers(0, 256, 3).tolist())
        x, y, width, height = (int(value) for value in random.integers((0, 0, 8, 8), (300, 220, 120, 120)))
        box, corners = (x, y, x + width, y + height), [tuple(p) for p in random.integers(0, 240, (5, 2)).tolist()]
        match random.integers(0, 4):
            case 0:
                draw.ellipse(box, fill=colour)
            case 1:
                draw.rectangle(box, fill=colour)
            case 2:
                draw.polygon(corners, fill=colour)
            case _:
                draw.line(corners, fill=colour, width=int(random.integers(1, 9)))
    grain = random.normal(0, random.uniform(0, 25), (240, 320, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def copies(path):
    """Re-compress, halve, and crop a photo by 5 %, in the middle and at a corner."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    width, height = image.size
    yield image, 50
    yield image.resize((width // 2, height // 2)), 90
    yield image.crop((round(0.025 * width), round(0.025 * height), round(0.975 * width), round(0.975 * height))), 90
    yield image.crop((round(0.05 * width), round(0.05 * height), width, height)), 90


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory):
    """The demo photos with four copies of each, among 1,000 other images."""
    folder = tmp_path_factory.mktemp("copies") / "collection"
    collection = new_collection(folder, 62, embedding_type="EFFICIENTNET_LITE0")
    originals = {}
    for number, path in enumerate(DEMO_PHOTOS):
        for kind, (image, quality) in enumerate(copies(path)):
            uuid = str(UUID(int=1 + 10 * number + kind))
            originals[uuid] = path.stem
            image.save(folder / "photos" / f"{uuid}.jpg", quality=quality)
    for number in range(1000):
        another_image(number).save(folder / "photos" / f"{UUID(int=10**6 + number)}.jpg", quality=90)
    collection.run()
    return collection, originals


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_copies_are_found_among_a_thousand_others_and_nothing_else(with_copies, tmp_path):
    collection, originals = with_copies
    done = collection.script("duplicates.py", "--json", "--html", str(tmp_path / "sheet.html"))
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)
    assert len(groups) == 62
    for group in groups:
        assert len(group) == 5
        assert len({originals.get(photo["uuid"], photo["uuid"]) for photo in group}) == 1
        pixels = [photo["width"] * photo["height"] for photo in group]
        assert pixels == sorted(pixels, reverse=True)
    said = f"groups: 62, with 310 of 1,310 photos; 248 could be removed; look at: {(tmp_path / 'sheet.html').as_uri()}"
    assert done.stderr.splitlines()[-1] == said
    assert (tmp_path / "sheet.html").read_text().count("data:image/jpeg;base64,") == 310


@pytest.mark.slow
def test_by_cosine_alone_thumbnails_are_not_compared(with_copies):
    collection, _ = with_copies
    done = collection.script("duplicates.py", "--json", "--by_cosine_alone", "--least_cosine", "0.9")
    groups = [{photo["uuid"] for photo in group} for group in json.loads(done.stdout)]
    embeddings = opened(collection)
    rows = embeddings.embeddings - embeddings.embeddings.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    row_of = {uuid: row for row, uuid in enumerate(embeddings.uuids)}
    assert groups
    for group in groups:
        members = rows[[row_of[uuid] for uuid in group]]
        similarity = members @ members.T - 2 * np.eye(len(members))
        assert (similarity.max(axis=1) >= 0.9 - 1e-5).all()


def test_without_copies_there_are_no_groups(demo_run):
    done = demo_run.script("duplicates.py")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "groups: 0, with 0 of 62 photos; 0 could be removed"


# ---- export ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(demo_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    names = {"--parquet": "photos.parquet", "--npy": "photos.npy", "--atlas": "atlas.parquet"}
    options = [text for key, name in names.items() for text in (key, str(folder / name))]
    done = demo_run.script("export.py", *options)
    assert done.returncode == 0, done.stderr
    return folder


FACTS = "TAKEN_OFFSET, CAMERA, i.LATITUDE, i.LONGITUDE, ALTITUDE"


def rows(collection):
    """The contents of the database for each photo, read without our library."""
    places = "SEMANTIC_EMBEDDING_UMAP_LATITUDE, SEMANTIC_EMBEDDING_UMAP_LONGITUDE"
    return collection.sql(
        f"SELECT e.UUID, EMBEDDING, {places}, PATH, TAKEN, {FACTS} FROM {{T}}_EMBEDDINGS e"
        " JOIN {T}_UMAP_HAVERSINE USING (UUID) JOIN {T}_IMAGES i USING (UUID) ORDER BY e.UUID"
    )


def test_parquet_read_by_pandas_equals_the_database(demo_run, exported):
    table = pd.read_parquet(exported / "photos.parquet")
    found = rows(demo_run)
    assert table["UUID"].tolist() == [row[0] for row in found]
    assert np.array_equal(
        np.stack(table["EMBEDDING"]), np.stack([np.frombuffer(row[1][-5120:], "<f4") for row in found])
    )
    assert np.array_equal(table["LATITUDE"], [row[2] for row in found])
    assert np.array_equal(table["LONGITUDE"], [row[3] for row in found])
    assert table["PATH"].tolist() == [row[4] for row in found]
    assert table["NAME"].tolist() == [Path(row[4]).name for row in found]
    assert table["FOLDER"].tolist() == [str(Path(row[4]).parent) for row in found]
    folders = page_data(demo_run.state / "map.html")["regions"]
    assert {*table["REGION"].dropna()} == {region["name"] for region in folders}
    assert table["TAKEN"].dtype.kind == "M"
    facts = ["TAKEN_OFFSET", "CAMERA", "EARTH_LATITUDE", "EARTH_LONGITUDE", "ALTITUDE"]
    assert [[None if pd.isna(value) else value for value in row] for row in table[facts].to_numpy()] == [
        [*row[6:]] for row in found
    ]
    similarity = np.stack(table["EMBEDDING"]) @ np.stack(table["EMBEDDING"]).T
    np.fill_diagonal(similarity, -2)
    for row, (names, values) in enumerate(zip(table["NEIGHBOURS"], table["SIMILARITIES"], strict=True)):
        nearest = np.argsort(-similarity[row], kind="stable")[:14]
        assert names.tolist() == table["UUID"].iloc[nearest].tolist()
        assert np.allclose(values, similarity[row, nearest], atol=1e-5)


@pytest.mark.parametrize("option", ["--parquet", "--atlas"])
def test_an_export_has_time_place_and_camera(demo, tmp_path, option):
    import pyarrow as pa
    from pyarrow import parquet

    taken = "CASE WHEN rowid % 3 = 0 THEN 'unreadable' ELSE '2021-05-06T07:08:09' END"
    values = f"TAKEN = {taken}, TAKEN_OFFSET = 'o', CAMERA = 'c', LATITUDE = 1, LONGITUDE = 2, ALTITUDE = 3"
    connection = sqlite3.connect(demo.database)
    connection.execute(f"UPDATE EFFICIENTNET_LITE0_IMAGES SET {values}")
    connection.commit()
    connection.close()
    done = demo.script("export.py", option, str(tmp_path / "x.parquet"))
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "x.parquet")
    columns = ["TAKEN_OFFSET", "CAMERA", "EARTH_LATITUDE", "EARTH_LONGITUDE", "ALTITUDE"]
    assert table[columns].iloc[7].tolist() == ["o", "c", 1, 2, 3]
    assert {*table["TAKEN"].dropna()} == {pd.Timestamp(2021, 5, 6, 7, 8, 9)}
    assert 0 < table["TAKEN"].isna().sum() < len(table), "what is no time is unknown"
    assert {"FOLDER", "REGION", "LATITUDE", "LONGITUDE"} <= {*table}
    kinds = parquet.read_schema(tmp_path / "x.parquet")
    if option == "--parquet":
        assert kinds.field("NEIGHBOURS").type == pa.list_(pa.string()), "LanceDB fails on fixed-size lists of texts"


def test_the_array_read_by_numpy_equals_the_database(demo_run, exported):
    embeddings = np.load(exported / "photos.npy")
    uuids = (exported / "photos.uuids.txt").read_text().splitlines()
    assert embeddings.dtype == np.float32
    assert {uuid: row.tobytes() for uuid, row in zip(uuids, embeddings, strict=True)} == {
        row[0]: row[1][-5120:] for row in rows(demo_run)
    }


def test_the_atlas_has_positions_neighbours_and_thumbnails(demo_run, exported):
    table = pd.read_parquet(exported / "atlas.parquet")
    found = rows(demo_run)
    assert table["UUID"].tolist() == [row[0] for row in found]
    assert {*table["REGION"].dropna()} == {
        region["name"] for region in page_data(demo_run.state / "map.html")["regions"]
    }
    phi, half = np.radians([row[2] for row in found]), np.radians([row[3] for row in found]) / 2
    assert np.allclose(table["Y"], np.sin(phi) / np.sqrt(1 + np.cos(phi) * np.cos(half)))
    assert np.allclose(table["X"], 2 * np.cos(phi) * np.sin(half) / np.sqrt(1 + np.cos(phi) * np.cos(half)))
    for row, (neighbours, thumbnail) in enumerate(zip(table["NEIGHBOURS"], table["THUMBNAIL"], strict=True)):
        assert len(neighbours["ids"]) == len(neighbours["distances"]) == 14
        assert row not in neighbours["ids"]
        with Image.open(io.BytesIO(thumbnail["bytes"])) as image:
            assert max(image.size) == THUMBNAIL_SIDE


def test_without_a_map_only_the_array_can_be_exported(demo, tmp_path):
    shutil.copy(demo.state / "map.tsv", tmp_path)
    (demo.state / "map.tsv").unlink()
    done = demo.script("export.py", "--parquet", str(tmp_path / "x.parquet"))
    assert done.returncode == 1
    assert "map.tsv' is missing; to make the map, run the workflow" in done.stderr
    assert demo.script("export.py", "--npy", str(tmp_path / "x.npy")).returncode == 0
    assert not (tmp_path / "x.parquet").exists()
    done = demo.script("export.py")
    assert done.returncode == 1
    assert (
        "nothing to export: give at least one of --parquet, --npy, --atlas, --crossfilter and --previews" in done.stderr
    )
