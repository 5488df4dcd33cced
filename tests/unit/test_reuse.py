"""Rows of the database that a job may use: copied for the same contents, adopted after a check."""

from types import SimpleNamespace

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
from crossfilter_inference.shards.plan import PlannedImage

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
