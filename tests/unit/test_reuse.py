"""Rows of the database that a job may use: copied for the same contents, adopted after a check."""

import re
from types import SimpleNamespace

import msgpack_numpy
import numpy as np
import pytest
from conftest import COLOUR_ENCODER

from crossfilter_inference.db.connect import writing
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.provenance import write_provenance
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.embed import reuse
from crossfilter_inference.embed.reuse import KnownRows
from crossfilter_inference.encoders.identity import EMBED_VERSION, provenance_to_text
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.run.database import adoptable_photos
from crossfilter_inference.shards.guard import unused_rows
from crossfilter_inference.shards.plan import Plan, PlannedImage, write_plan

ENCODER = resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "a"})
ROW = np.eye(ENCODER["dimension"], dtype=np.float32)[0]
IMAGES = [PlannedImage(f"u{n}", f"{n}.jpg", 1, 1, "000001") for n in range(20)]


def photo(uuid, digest="another"):
    image = next(image for image in IMAGES if image.uuid == uuid)
    return SimpleNamespace(image=image, digest=digest, loaded=SimpleNamespace(exif=SimpleNamespace(is_turned=False)))


@pytest.fixture
def database(tmp_path):
    """Twenty rows of unknown origin."""
    tables, path = Tables("T"), tmp_path / "x.sqlite"
    with writing(path) as connection:
        tables.create(connection, tables.embeddings, tables.images, tables.provenance)
        rows = [{"UUID": image.uuid, "EMBEDDING": pack_embedding(ROW)} for image in IMAGES]
        connection.execute(tables.embeddings.insert(), rows)
    return str(path)


def change(database, statement, *values):
    with writing(database) as connection:
        connection.exec_driver_sql(statement, values)


def record(database, encoder=ENCODER):
    with writing(database) as connection:
        write_provenance(connection, "T", "encoder_", provenance_to_text(encoder))


@pytest.fixture(autouse=True)
def _no_samples(monkeypatch):
    monkeypatch.setattr(reuse, "N_CHECKED", 0)
    monkeypatch.setattr(KnownRows, "_is_chosen", lambda rows: False)


def test_rows_of_unknown_origin_are_adopted_whether_or_not_this_encoder_is_recorded(database):
    assert KnownRows(database, ENCODER, IMAGES).find(photo("u1")).is_adopted
    record(database)
    assert KnownRows(database, ENCODER, IMAGES).find(photo("u1")).is_adopted


def test_rows_of_unknown_origin_are_not_adopted_beside_those_of_another_encoder(database):
    record(database, resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "b"}))
    assert KnownRows(database, ENCODER, IMAGES).find(photo("u1")) is None


@pytest.mark.parametrize(("length", "is_refused"), [(1.005, False), (1.015, True), (0.985, True), (np.nan, True)])
def test_adopted_rows_have_unit_length(database, length, is_refused):
    change(database, "UPDATE T_EMBEDDINGS SET EMBEDDING = ?", pack_embedding((ROW * length).astype(np.float32)))
    rows = KnownRows(database, ENCODER, IMAGES)
    if is_refused:
        with pytest.raises(InputError, match=rf"u?1\.jpg has length {length:.4g}, expected 1"):
            rows.find(photo("u1"))
    else:
        assert rows.find(photo("u1")).is_adopted


def test_a_row_that_changed_since_the_job_began_is_not_copied(database):
    record(database)
    change(database, "INSERT INTO T_IMAGES (UUID, DIGEST, EMBED_VERSION) VALUES ('u1', 'content', ?)", EMBED_VERSION)
    rows = KnownRows(database, ENCODER, IMAGES[5:])
    assert not rows.find(photo("u7", "content")).is_adopted
    change(database, "UPDATE T_IMAGES SET DIGEST = 'new'")
    known = KnownRows(database, ENCODER, [])
    known._uuids = {"content": "u1"}
    assert known.find(photo("u7", "content")) is None


@pytest.mark.parametrize(
    "blob",
    [pack_embedding(2 * ROW), pack_embedding(np.nan * ROW), pack_embedding(ROW[1:]), pack_embedding(ROW)[:-1], b""],
    ids=["too long", "not finite", "of another dimension", "cut off", "empty"],
)
def test_a_damaged_row_is_not_copied_into_a_shard(database, blob):
    record(database)
    change(database, "INSERT INTO T_IMAGES (UUID, DIGEST, EMBED_VERSION) VALUES ('u1', 'same', ?)", EMBED_VERSION)
    assert KnownRows(database, ENCODER, IMAGES).find(photo("u1", "same")) is not None
    change(database, "UPDATE T_EMBEDDINGS SET EMBEDDING = ? WHERE UUID = 'u1'", blob)
    assert KnownRows(database, ENCODER, IMAGES).find(photo("u1", "same")) is None


def test_rows_of_another_encoder_are_not_copied(database):
    record(database, resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "b"}))
    change(database, "INSERT INTO T_IMAGES (UUID, DIGEST, EMBED_VERSION) VALUES ('u1', 'content', ?)", EMBED_VERSION)
    assert KnownRows(database, ENCODER, []).find(photo("u7", "content")) is None


def test_rows_of_another_embed_version_are_not_copied(database):
    record(database)
    change(
        database, "INSERT INTO T_IMAGES (UUID, DIGEST, EMBED_VERSION) VALUES ('u1', 'content', ?)", EMBED_VERSION - 1
    )
    assert KnownRows(database, ENCODER, []).find(photo("u7", "content")) is None


# ---- tables of Crossfilter's application ------------------------------------------------------------------------


def write_as_the_application(database, embeddings):
    """Write embeddings as the application's own tool does: rows as text, UUIDs as a type that SQLite does not know."""
    with writing(database) as connection:
        connection.exec_driver_sql("CREATE TABLE IMAGE_EMBEDDINGS (UUID_STRING STRING, SEMANTIC_EMBEDDING TEXT)")
        rows = [(uuid, msgpack_numpy.packb(embedding)) for uuid, embedding in embeddings.items()]
        connection.exec_driver_sql("INSERT INTO IMAGE_EMBEDDINGS VALUES (?, ?)", rows)


@pytest.fixture
def of_the_application(tmp_path):
    """Its database, with rows of the 20 photos and of another."""
    path = str(tmp_path / "application.sqlite")
    write_as_the_application(path, {image.uuid: ROW for image in IMAGES} | {"away": ROW})
    return path


def test_rows_of_the_application_are_adopted(of_the_application):
    assert KnownRows(of_the_application, ENCODER, IMAGES).may_be_reused
    assert KnownRows(of_the_application, ENCODER, IMAGES).find(photo("u1")).is_adopted
    assert adoptable_photos(of_the_application, "T") == {"away", *(image.uuid for image in IMAGES)}
    with writing(of_the_application) as connection:
        Tables("T").create(connection, Tables("T").images, Tables("T").provenance)
    record(of_the_application, resolve_encoder("T", {"backend": str(COLOUR_ENCODER), "model": "b"}))
    assert KnownRows(of_the_application, ENCODER, IMAGES).find(photo("u1")) is None


def test_a_row_of_the_application_is_adopted_once(of_the_application):
    with writing(of_the_application) as connection:
        Tables("T").create(connection, Tables("T").embeddings, Tables("T").images)
    change(of_the_application, "INSERT INTO T_IMAGES (UUID) VALUES ('u1')")
    change(of_the_application, "INSERT INTO T_EMBEDDINGS VALUES ('u2', ?)", pack_embedding(ROW))
    rows = KnownRows(of_the_application, ENCODER, IMAGES)
    assert rows.find(photo("u1")) is None, "the photo may have changed since"
    assert rows.find(photo("u2")).is_adopted
    assert adoptable_photos(of_the_application, "T").isdisjoint({"u1", "u2"})


def test_a_wrong_row_of_the_application_is_refused_by_its_table(of_the_application, monkeypatch):
    change(of_the_application, "UPDATE IMAGE_EMBEDDINGS SET SEMANTIC_EMBEDDING = ?", pack_embedding(3 * ROW))
    with pytest.raises(InputError, match=r"^IMAGE_EMBEDDINGS holds 20 embeddings of unknown origin .* has length 3,"):
        KnownRows(of_the_application, ENCODER, IMAGES).find(photo("u1"))
    change(of_the_application, "UPDATE IMAGE_EMBEDDINGS SET SEMANTIC_EMBEDDING = ?", pack_embedding(ROW))
    monkeypatch.setattr(KnownRows, "_is_chosen", lambda rows: True)
    rows = KnownRows(of_the_application, ENCODER, IMAGES)
    assert rows.find(photo("u1")) is None
    with pytest.raises(InputError, match=r"^IMAGE_EMBEDDINGS .* has cosine 0\.0000 to the embedding of this photo"):
        rows.check(photo("u1"), np.eye(len(ROW), dtype=np.float32)[1])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (pack_embedding(ROW[1:]), r"they have 47 dimensions, and those of a have 48 dimensions"),
        (
            pack_embedding(np.zeros(1152)),
            r"they have 1,152 dimensions \(the original tool's SIGLIP2 has as many: to go on with its rows, set "
            r"encoders: \{T: \{model: google/siglip-so400m-patch14-384\}\}; see docs/original\.md\), and those of a",
        ),
        (None, "they cannot be read"),
        (b"no msgpack", "they cannot be read"),
    ],
)
def test_other_rows_of_the_application_are_not_used_and_a_line_says_why(of_the_application, tmp_path, row, why):
    plan = str(tmp_path / "plan.tsv")
    write_plan(plan, Plan(IMAGES, [], []))
    assert unused_rows(of_the_application, plan, ENCODER) == ""
    assert unused_rows(str(tmp_path / "missing.sqlite"), plan, ENCODER) == ""
    change(of_the_application, "UPDATE IMAGE_EMBEDDINGS SET SEMANTIC_EMBEDDING = ? WHERE UUID_STRING >= 'u5'", row)
    rows = KnownRows(of_the_application, ENCODER, IMAGES)
    assert rows.find(photo("u7")) is None
    assert rows.find(photo("u10")).is_adopted
    line = unused_rows(of_the_application, plan, ENCODER)
    assert re.match(rf"IMAGE_EMBEDDINGS, .* has rows for 5 photos that are not used: {why}", line)


def test_the_refusal_of_rows_of_the_originals_model_says_how_to_go_on(database):
    change(database, "UPDATE T_EMBEDDINGS SET EMBEDDING = ?", pack_embedding(np.zeros(1152)))
    hint = r"has 1152 dimensions, expected 48 \(.*set encoders: \{T: \{model: google/siglip-so400m-patch14-384\}\}"
    with pytest.raises(InputError, match=hint):
        KnownRows(database, ENCODER, IMAGES).find(photo("u1"))
