"""Merge shard databases into the database, and put the map into it: one writer, one transaction.

The database is a function of the shard databases and the manifest: every image's row comes from the shard
that owns it. Rows of images that have gone stay (`missing_images: keep`) or go (`delete`).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import INTEGER, TEXT, Column, Connection, MetaData, Table

from .database import (
    Tables,
    read_provenance,
    read_shard,
    read_shard_provenance,
    recorded_encoder,
    unknown_rows,
    write_provenance,
    writing,
)
from .encoders import provenance_digest, provenance_to_text
from .files import printable, read_json, read_tsv, write_json
from .map_settings import MAP_COLUMNS
from .plan import MANIFEST_COLUMNS, shard_lists
from .provenance import check_shard, gone_rows_of_another_encoder, gone_rows_of_unknown_origin

_CHUNK = 1000

# The manifest as a table of the transaction, so that memory does not grow with the collection.
_manifest = Table(
    "MANIFEST",
    MetaData(),
    Column("UUID", TEXT, primary_key=True),
    Column("PATH", TEXT),
    Column("SIZE", INTEGER),
    Column("MTIME_NS", INTEGER),
    Column("SHARD", TEXT),
    prefixes=["TEMPORARY"],
)


@dataclass
class Stored:
    """What a merge did and what the database holds now."""

    n_merged: int = 0
    n_deleted: int = 0
    n_embeddings: int = 0
    n_failures: int = 0


def store_embeddings(
    encoder_json: str,
    manifest: str,
    database: str,
    shards_folder: str,
    embeddings_folder: str,
    receipt: str,
    *,
    generation: int,
    delete_missing: bool,
) -> Stored:
    """Bring the database up to the manifest.

    Parameters
    ----------
    encoder_json, manifest, database, receipt : str
        Paths; the receipt is written last.
    shards_folder, embeddings_folder : str
        Where the shard lists and the shard databases are.
    generation : int
        Goes into the receipt.
    delete_missing : bool
        Delete the rows of images that are not in the manifest.

    Raises
    ------
    InputError
        If rows of another encoder would stay beside the new ones. The database is as it was.
    """
    encoder = read_json(encoder_json)
    embedding_type = encoder["name"]
    tables = Tables(embedding_type)
    shards = {path.stem: f"{embeddings_folder}/{path.stem}.sqlite" for path in shard_lists(shards_folder)}
    provenances = {shard: read_shard_provenance(path, embedding_type) for shard, path in shards.items()}
    for shard, provenance in provenances.items():
        check_shard(shards[shard], provenance, encoder)
    digests = {shard: provenance["shard_digest"] for shard, provenance in provenances.items()}
    n_adopted = sum(int(provenance.get("timing_n_adopted", 0)) for provenance in provenances.values())
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with writing(database) as connection:
        tables.create(
            connection,
            *(tables.embeddings, tables.images, tables.failures, tables.provenance, tables.shards),
        )
        _load_manifest(connection, manifest)
        stored = Stored()
        for shard in _shards_to_merge(connection, tables, digests):
            stored.n_merged += _merge_shard(connection, tables, shards[shard], keep=not delete_missing)
        stored.n_deleted = _forget(connection, tables, delete_missing=delete_missing)
        _follow_moves(connection, tables)
        connection.execute(sa.delete(tables.shards))
        connection.execute(
            sa.insert(tables.shards), [{"SHARD": shard, "DIGEST": value} for shard, value in digests.items()]
        )
        _refuse_mixture(connection, tables, encoder, n_adopted)
        stored.n_embeddings, digest = _digest_embeddings(connection, tables)
        stored.n_failures = connection.scalar(sa.select(sa.func.count()).select_from(tables.failures))
        write_provenance(connection, embedding_type, "encoder_", provenance_to_text(encoder))
        write_provenance(connection, embedding_type, "embeddings_", {"digest": digest})
    counts = {"n_embeddings": stored.n_embeddings, "n_failures": stored.n_failures}
    write_json(receipt, {"generation": generation, "digest": digest, **counts})
    return stored


def store_map(
    embedding_type: str, database: str, model: str, map_table: str, quality: str, receipt: str, *, generation: int
) -> int:
    """Put the UMAP model and every photo's place into the database.

    Parameters
    ----------
    embedding_type, database : str
    model, map_table, quality : str
        Paths of `umap_model.pkl`, `map.tsv` and `map_quality.json`.
    receipt : str
        Path; written last.
    generation : int
        Goes into the receipt.

    Returns
    -------
    int
        Number of photos on the map.
    """
    tables = Tables(embedding_type)
    pickled = Path(model).read_bytes()
    rows = [
        {
            "UUID": uuid,
            "SEMANTIC_EMBEDDING_UMAP_LATITUDE": float(latitude),
            "SEMANTIC_EMBEDDING_UMAP_LONGITUDE": float(longitude),
        }
        for uuid, latitude, longitude in read_tsv(map_table, MAP_COLUMNS)
    ]
    digest = hashlib.sha256(pickled + Path(map_table).read_bytes()).hexdigest()
    with writing(database) as connection:
        if read_provenance(connection, embedding_type).get("map_digest") != digest:
            for table in (tables.umap_model, tables.umap_haversine):
                table.drop(connection, checkfirst=True)
                table.create(connection)
            connection.execute(sa.insert(tables.umap_model), {"MODEL": pickled})
            connection.execute(sa.insert(tables.umap_haversine), rows)
        figures = {key: value for key, value in read_json(quality).items() if value is not None}
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in figures.items()}
        values |= {"digest": digest, "model_digest": hashlib.sha256(pickled).hexdigest()}
        write_provenance(connection, embedding_type, "map_", values)
    write_json(receipt, {"generation": generation, "n_rows": len(rows), "digest": digest})
    return len(rows)


def _load_manifest(connection: Connection, path: str) -> None:
    _manifest.create(connection)
    for rows in _chunks(read_tsv(path, MANIFEST_COLUMNS)):
        values = [dict(zip(MANIFEST_COLUMNS, (u, printable(p), *rest), strict=True)) for u, p, *rest in rows]
        connection.execute(sa.insert(_manifest), values)


def _shards_to_merge(connection: Connection, tables: Tables, digests: dict[str, str]) -> list[str]:
    """Name the shards that changed, and those that own an image whose row came from elsewhere."""
    merged = dict(connection.execute(sa.select(tables.shards)).tuples().all())
    changed = [shard for shard, digest in digests.items() if merged.get(shard) != digest]
    elsewhere = sa.select(_manifest.c.SHARD).distinct().where(~_is_merged(tables))
    return sorted({*changed, *connection.scalars(elsewhere)} & digests.keys())


def _is_merged(tables: Tables) -> sa.ColumnElement[bool]:
    return sa.or_(
        *(
            sa.exists().where(table.c.UUID == _manifest.c.UUID, table.c.SHARD == _manifest.c.SHARD)
            for table in (tables.images, tables.failures)
        )
    )


def _merge_shard(connection: Connection, tables: Tables, path: str, *, keep: bool) -> int:
    """Take over the rows of one shard: of the images that it owns, and of those that have gone."""
    shard = Path(path).stem
    n_merged = 0
    embedded = sa.select(tables.images, tables.embeddings.c.EMBEDDING).join(
        tables.embeddings, tables.images.c.UUID == tables.embeddings.c.UUID
    )
    for rows in _chunks(read_shard(path, embedded)):
        wanted = _wanted(connection, tables, shard, [row["UUID"] for row in rows], keep=keep)
        rows = [row for row in rows if row["UUID"] in wanted]
        _replace(connection, tables.failures, [], wanted)
        _replace(connection, tables.embeddings, rows, wanted)
        _replace(connection, tables.images, rows, wanted)
        n_merged += len(rows)
    for rows in _chunks(read_shard(path, sa.select(tables.failures))):
        wanted = _wanted(connection, tables, shard, [row["UUID"] for row in rows], keep=False)
        _replace(connection, tables.embeddings, [], wanted)
        _replace(connection, tables.images, [], wanted)
        _replace(connection, tables.failures, [row for row in rows if row["UUID"] in wanted], wanted)
    return n_merged


def _wanted(connection: Connection, tables: Tables, shard: str, uuids: list[str], *, keep: bool) -> set[str]:
    """Choose those that the shard owns; of those that have gone, the newest row there is is kept."""
    owners = dict(
        connection.execute(sa.select(_manifest.c.UUID, _manifest.c.SHARD).where(_manifest.c.UUID.in_(uuids)))
        .tuples()
        .all()
    )
    newer = set(
        connection.scalars(
            sa.select(tables.images.c.UUID).where(tables.images.c.UUID.in_(uuids), shard < tables.images.c.SHARD)
        )
    )
    return {uuid for uuid in uuids if (owners[uuid] == shard if uuid in owners else keep and uuid not in newer)}


def _replace(connection: Connection, table: Table, rows: list[dict], uuids: set[str]) -> None:
    connection.execute(sa.delete(table).where(table.c.UUID.in_(uuids)))
    if rows:
        names = table.c.keys()
        connection.execute(sa.insert(table), [{name: row[name] for name in names} for row in rows])


def _forget(connection: Connection, tables: Tables, *, delete_missing: bool) -> int:
    """Drop rows of images that have gone, or that are there under another spelling of their UUID.

    Returns
    -------
    int
        Number of embeddings dropped.
    """
    n_dropped = {}
    for table in (tables.embeddings, tables.images, tables.failures):
        gone = table.c.UUID.not_in(sa.select(_manifest.c.UUID))
        if not delete_missing and table is not tables.failures:
            spelling = sa.func.lower(sa.func.replace(table.c.UUID, "-", ""))
            gone &= spelling.in_(sa.select(sa.func.lower(sa.func.replace(_manifest.c.UUID, "-", ""))))
        n_dropped[table] = connection.execute(sa.delete(table).where(gone)).rowcount
    return n_dropped[tables.embeddings]


def _follow_moves(connection: Connection, tables: Tables) -> None:
    for table in (tables.images, tables.failures):
        moved = (table.c.UUID == _manifest.c.UUID) & (table.c.PATH != _manifest.c.PATH)
        connection.execute(sa.update(table).values(PATH=_manifest.c.PATH).where(moved))


def _refuse_mixture(connection: Connection, tables: Tables, encoder: dict, n_adopted: int) -> None:
    """Look at the rows that stay of photos that have gone, whatever brought this about."""
    name = encoder["name"]
    gone = set(connection.scalars(sa.select(tables.embeddings.c.UUID)))
    gone -= set(connection.scalars(sa.select(_manifest.c.UUID)))
    recorded = recorded_encoder(connection, name)
    if "digest" not in recorded:
        if not n_adopted and (unknown := gone & unknown_rows(connection, name)):
            raise gone_rows_of_unknown_origin(name, len(unknown), "no photo was left to check them by")
    elif gone and recorded["digest"] != provenance_digest(encoder):
        raise gone_rows_of_another_encoder(name, len(gone), recorded, provenance_to_text(encoder))


def _digest_embeddings(connection: Connection, tables: Tables) -> tuple[int, str]:
    digest, n_rows = hashlib.sha256(), 0
    for uuid, blob in connection.execute(sa.select(tables.embeddings).order_by(tables.embeddings.c.UUID)):
        digest.update(uuid.encode() + blob)
        n_rows += 1
    return n_rows, digest.hexdigest()


def _chunks(rows: Iterator) -> Iterator[list]:
    rows, chunk = iter(rows), []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
