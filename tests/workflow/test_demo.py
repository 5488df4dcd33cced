"""The demo: the results of `make run`, and of a later run."""

import csv
import pickle
import shutil
from collections import Counter

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import warm
from conftest import DEMO, DEMO_PHOTOS, PROJECT, jobs
from PIL import Image

from crossfilter_inference.db.connect import reading
from crossfilter_inference.db.embeddings import pack_embedding, read_embeddings

AFTER_NEW_PHOTOS = ("write_manifest", "embed_shard", "store_embeddings", "fit_umap", "store_map", "draw_map")


def test_first_run_leaves_62_rows_a_map_and_a_model(demo_run):
    count = "SELECT count(*) FROM {T}_"
    assert demo_run.sql(f"{count}EMBEDDINGS") == [(62,)]
    assert demo_run.sql(f"{count}UMAP_HAVERSINE") == [(62,)]
    assert demo_run.sql(f"{count}UMAP_MODEL") == [(1,)]
    assert demo_run.sql(f"{count}IMAGES") == [(62,)]
    assert demo_run.sql(f"{count}FAILURES") == [(0,)]
    with Image.open(demo_run.state / "map.png") as picture:
        assert picture.size == (2400, 1340)
        assert len(picture.convert("RGB").getcolors(2**24)) > 10_000  # photos, not an empty sphere


def test_the_run_prints_at_most_40_lines_the_link_last(demo_run):
    lines = (demo_run.folder.parent / "output.txt").read_text().splitlines()
    assert len(lines) <= 40
    assert lines[-1] == look_at(demo_run)
    assert lines[-5].startswith("embedded: 62 photos in this run, 62 in total, ")


def test_every_row_names_its_image(demo_run):
    rows = demo_run.sql("SELECT UUID, PATH, SIZE, WIDTH, HEIGHT, SHARD FROM {T}_IMAGES")
    with (DEMO / "photos.csv").open(newline="") as file:
        known = {row["id"]: row for row in csv.DictReader(file)}
    assert {row[0] for row in rows} == set(known)
    for uuid, path, size, width, height, shard in rows:
        assert path.endswith(f"/{uuid}.jpg")
        expected = [int(known[uuid][key]) for key in ("bytes", "width", "height")]
        assert [size, width, height] == expected
        assert shard == "000001"


def test_nearest_neighbours_give_the_label(demo_run):
    with reading(demo_run.database) as connection:
        uuids, embeddings = read_embeddings(connection, "EFFICIENTNET_LITE0")
    with (DEMO / "photos.csv").open(newline="") as file:
        labels = {row["id"]: row["label"] for row in csv.DictReader(file)}
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -1)
    right = 0
    for uuid, row in zip(uuids, similarity, strict=True):
        nearest = [labels[uuids[index]] for index in np.argsort(-row)[:5]]
        right += Counter(nearest).most_common(1)[0][0] == labels[uuid]
    assert right / len(uuids) >= 0.8


def test_rows_are_what_msgpack_numpy_writes_and_any_msgpack_reads(demo_run):
    for blob in demo_run.embeddings().values():
        vector = msgpack.unpackb(blob, object_hook=msgpack_numpy.decode)
        assert vector.shape == (1280,)
        assert vector.dtype == np.float32
        assert np.isclose(np.linalg.norm(vector), 1)
        assert msgpack.packb(vector, default=msgpack_numpy.encode) == blob == pack_embedding(vector)
        plain = msgpack.unpackb(blob)
        assert np.array_equal(np.frombuffer(plain[b"data"], "<f4"), vector)


def test_the_model_holds_positions_in_the_order_of_its_uuids(demo_run):
    [(blob,)] = demo_run.sql("SELECT MODEL FROM {T}_UMAP_MODEL")
    model = pickle.loads(blob)
    rows = demo_run.sql("SELECT * FROM {T}_UMAP_HAVERSINE ORDER BY UUID")
    assert model.uuids_ == [row[0] for row in rows] == sorted(demo_run.embeddings())
    theta, phi = model.embedding_.T
    latitude, longitude = np.array([row[1:] for row in rows]).T
    assert np.allclose(latitude, 90 - np.degrees(theta))
    assert np.allclose(np.sin(np.radians(longitude)) * np.sin(theta), np.sin(theta) * np.cos(phi))
    assert np.abs(latitude).max() <= 90
    assert np.abs(longitude).max() <= 180


def look_at(collection):
    return f"look at:  {(collection.state / 'map.html').as_uri()}"


def test_nothing_is_to_be_done_after_the_first_run(demo):
    done = demo.snakemake()
    assert jobs(done.stdout) == {}
    assert look_at(demo) in done.stdout.splitlines()
    (demo.folder / "more" / "no-uuid.jpg").touch()
    done = demo.snakemake()
    assert "embed_shard" not in jobs(done.stdout)
    assert done.stdout.splitlines().count(look_at(demo)) == 1


@pytest.mark.slow
def test_nothing_is_to_be_done_after_another_type_was_run_into_the_same_database(demo):
    rows = demo.embeddings()
    demo.configure(embedding_type="COLOUR")
    assert demo.run() == dict.fromkeys(("resolve_encoder", *AFTER_NEW_PHOTOS), 1)
    assert len(demo.embeddings()) == 62
    assert demo.dry_run() == {}
    demo.configure(embedding_type="EFFICIENTNET_LITE0")
    assert demo.dry_run() == {}
    assert demo.embeddings() == rows


def test_three_new_photos_are_one_small_shard(demo):
    before = demo.embeddings()
    sources = DEMO_PHOTOS[:3]
    uuids = [f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(3)]
    for uuid, source in zip(uuids, sources, strict=True):
        with Image.open(source) as image:
            image.rotate(90).save(demo.folder / "more" / f"{uuid}.jpg")
    assert demo.dry_run() == dict.fromkeys(AFTER_NEW_PHOTOS, 1)
    done = demo.snakemake()
    assert "embedded 3 photos, copied 0, failed 0" in done.stdout
    closing = done.stdout.splitlines()[-8:]
    at = closing.index("embedded: 3 photos in this run, 65 in total, in results/photos.sqlite")
    assert closing[at + 1 : at + 3] == ["failed:   0 photos", "rejected: 0 files"]
    assert closing[at + 3].startswith("map:      3 photos added, 0 removed; the other photos moved by ")
    assert closing[at + 4] == look_at(demo)
    after = demo.embeddings()
    assert set(after) == {*before, *uuids}
    assert {uuid: after[uuid] for uuid in before} == before
    assert demo.sql("SELECT count(*) FROM {T}_UMAP_HAVERSINE") == [(65,)]
    assert demo.dry_run() == {}


IGNORED = (".venv", ".git", "results", ".snakemake", "node_modules", ".*_cache")


def test_a_new_version_of_the_rules_runs_nothing(demo, tmp_path):
    version = tmp_path / "version"
    shutil.copytree(PROJECT, version, ignore=shutil.ignore_patterns(*IGNORED))
    for path in [*version.glob("scripts/*.py"), *version.glob("workflow/**/*.py"), version / "Snakefile"]:
        path.touch()
    for path in version.glob("workflow/rules/*.smk"):
        path.write_text(path.read_text().replace("--log {log:q}", "  --log {log:q}"))
    for path in version.glob("envs/*.yaml"):
        path.write_text(path.read_text() + "  - unrelated\n")
    command = [part.replace(str(PROJECT / "Snakefile"), str(version / "Snakefile")) for part in demo.command("-n")]
    done = warm.run(command, demo.folder, timeout=60)
    assert done.returncode == 0, done.stdout
    assert jobs(done.stdout) == {}
