"""Merge shard databases into the database, and put the map into it: one writer, one transaction.

The database is a function of the shard databases and the manifest: every image's row comes from the shard
that owns it. Rows of images that have gone stay (`missing_images: keep`) or go (`delete`).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from .connections import writing, written_early
from .database import Tables, read_provenance, recorded_encoder, write_provenance
from .encoders import provenance_digest, provenance_to_text
from .files import read_json, read_tsv, write_json, write_tsv
from .map_settings import MAP_COLUMNS
from .merge import Merge, load_manifest, manifest_table
from .plan import RETIRED_COLUMNS, shard_lists
from .provenance import check_shard, gone_rows_of_another_encoder, gone_rows_of_unknown_origin
from .shard_reading import outcomes, read_shard_provenance

# Enough for the upper levels of the tables' trees: UUIDs come in no order.
_CACHE_KB = 64_000


@dataclass
class Stored:
    """What a merge did and what the database holds now."""

    n_merged: int = 0
    n_deleted: int = 0
    n_retired: int = 0
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
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with written_early(database), writing(database) as connection:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KB}")
        tables.create(
            connection,
            *(tables.embeddings, tables.images, tables.failures, tables.provenance, tables.shards),
        )
        load_manifest(connection, manifest)
        shards = _shards(connection, shards_folder, embeddings_folder)
        provenances = {shard: read_shard_provenance(path, embedding_type) for shard, path in shards.items()}
        for shard, provenance in provenances.items():
            check_shard(shards[shard], provenance, encoder)
        digests = {shard: provenance["shard_digest"] for shard, provenance in provenances.items()}
        n_adopted = sum(int(provenance.get("timing_n_adopted", 0)) for provenance in provenances.values())

        _follow_moves(connection, tables)
        merge = Merge(connection, embedding_type, keep=not delete_missing)
        merge.take({shard: shards[shard] for shard in _shards_to_merge(connection, tables, digests)})
        merge.forget()
        _refuse_mixture(connection, tables, encoder, n_adopted)
        retired = _retired(connection, embedding_type, shards)
        connection.execute(sa.delete(tables.shards))
        kept = [{"SHARD": shard, "DIGEST": value} for shard, value in digests.items() if shard not in retired]
        connection.execute(sa.insert(tables.shards), kept)
        stored = Stored(n_merged=merge.n_merged, n_deleted=merge.n_deleted, n_retired=len(retired))
        stored.n_embeddings, digest = merge.totals()
        stored.n_failures = connection.scalar(sa.select(sa.func.count()).select_from(tables.failures))
        write_provenance(connection, embedding_type, "encoder_", provenance_to_text(encoder))
        recorded = {"digest": digest, "rows": str(stored.n_embeddings)}
        write_provenance(connection, embedding_type, "embeddings_", recorded)
    write_tsv(Path(receipt).with_name("retired.tsv"), RETIRED_COLUMNS, [(shard,) for shard in sorted(retired)])
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


def _shards(connection: Connection, shards_folder: str, embeddings_folder: str) -> dict[str, str]:
    """Find the shard databases: of shards that own an image, and those that are there besides."""
    owners = set(connection.scalars(sa.select(manifest_table.c.SHARD).distinct()))
    paths = {path.stem: f"{embeddings_folder}/{path.stem}.sqlite" for path in shard_lists(shards_folder)}
    return {shard: path for shard, path in paths.items() if shard in owners or Path(path).exists()}


def _shards_to_merge(connection: Connection, tables: Tables, digests: dict[str, str]) -> list[str]:
    """Name the shards that changed, and those that own an image whose row came from elsewhere."""
    merged = dict(connection.execute(sa.select(tables.shards)).tuples().all())
    changed = [shard for shard, digest in digests.items() if merged.get(shard) != digest]
    if len(changed) == len(digests):
        return changed
    elsewhere = sa.select(manifest_table.c.SHARD).distinct().where(~_is_merged(tables))
    return sorted({*changed, *connection.scalars(elsewhere)} & digests.keys())


def _retired(connection: Connection, embedding_type: str, shards: dict[str, str]) -> set[str]:
    """Name the shards from which nothing comes any more, whatever is lost and made again.

    A failure of a photo that has gone keeps its shard: without it an older shard's row would come back.
    """
    idle = shards.keys() - set(connection.scalars(sa.select(manifest_table.c.SHARD).distinct()))
    if idle:
        idle -= set(connection.scalars(sa.select(Tables(embedding_type).images.c.SHARD).distinct()))
    there = sa.select(manifest_table.c.UUID)
    retired = set()
    for shard in idle:
        _, failed = outcomes(shards[shard], embedding_type)
        if failed <= set(connection.scalars(there.where(manifest_table.c.UUID.in_(failed)))):
            retired.add(shard)
    return retired


def _is_merged(tables: Tables) -> sa.ColumnElement[bool]:
    return sa.or_(
        *(
            sa.exists().where(table.c.UUID == manifest_table.c.UUID, table.c.SHARD == manifest_table.c.SHARD)
            for table in (tables.images, tables.failures)
        )
    )


def _follow_moves(connection: Connection, tables: Tables) -> None:
    for table in (tables.images, tables.failures):
        moved = (table.c.UUID == manifest_table.c.UUID) & (table.c.PATH != manifest_table.c.PATH)
        connection.execute(sa.update(table).values(PATH=manifest_table.c.PATH).where(moved))


def _refuse_mixture(connection: Connection, tables: Tables, encoder: dict, n_adopted: int) -> None:
    """Look at the rows that stay of photos that have gone, whatever brought this about."""
    name = encoder["name"]
    recorded = recorded_encoder(connection, name)
    if recorded.get("digest") == provenance_digest(encoder):
        return
    gone = tables.embeddings.c.UUID.not_in(sa.select(manifest_table.c.UUID))
    if "digest" in recorded:
        if n_gone := connection.scalar(sa.select(sa.func.count()).where(gone)):
            raise gone_rows_of_another_encoder(name, n_gone, recorded, provenance_to_text(encoder))
    elif not n_adopted:
        unknown = gone & tables.embeddings.c.UUID.not_in(sa.select(tables.images.c.UUID))
        if n_unknown := connection.scalar(sa.select(sa.func.count()).where(unknown)):
            raise gone_rows_of_unknown_origin(name, n_unknown, "no photo was left to check them by")
