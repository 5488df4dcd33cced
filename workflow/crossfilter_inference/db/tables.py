"""The tables of an embedding type: they carry its name, `<TYPE>_EMBEDDINGS` and so on.

A shard database has the same tables for its own images.
"""

import functools

from sqlalchemy import BLOB, INTEGER, REAL, TEXT, Column, Connection, MetaData, Table


@functools.cache  # a thousand shards ask for the same ones
class Tables:
    """The tables of one embedding type."""

    def __init__(self, embedding_type: str):
        self.metadata = MetaData()

        def table(name: str, *columns: Column) -> Table:
            return Table(f"{embedding_type}_{name}", self.metadata, *columns)

        def uuid() -> Column:
            return Column("UUID", TEXT, primary_key=True)

        self.embeddings = table("EMBEDDINGS", uuid(), Column("EMBEDDING", BLOB, nullable=False))
        self.images = table(
            "IMAGES",
            uuid(),
            Column("PATH", TEXT),
            Column("SIZE", INTEGER),
            Column("MTIME_NS", INTEGER),
            Column("DIGEST", TEXT),
            Column("WIDTH", INTEGER),
            Column("HEIGHT", INTEGER),
            Column("TAKEN", TEXT),
            Column("SHARD", TEXT),
        )
        self.failures = table(
            "FAILURES",
            uuid(),
            Column("PATH", TEXT),
            Column("REASON", TEXT),
            Column("MESSAGE", TEXT),
            Column("SHARD", TEXT),
        )
        self.provenance = table("PROVENANCE", Column("KEY", TEXT, primary_key=True), Column("VALUE", TEXT))
        self.shards = table("SHARDS", Column("SHARD", TEXT, primary_key=True), Column("DIGEST", TEXT))
        self.thumbnails = table("THUMBNAILS", uuid(), Column("JPEG", BLOB, nullable=False))
        self.umap_model = table("UMAP_MODEL", Column("MODEL", BLOB, nullable=False))
        self.umap_haversine = table(
            "UMAP_HAVERSINE",
            uuid(),
            Column("SEMANTIC_EMBEDDING_UMAP_LATITUDE", REAL),
            Column("SEMANTIC_EMBEDDING_UMAP_LONGITUDE", REAL),
        )

    def create(self, connection: Connection, *tables: Table) -> None:
        """Create those of the tables that are not there yet."""
        self.metadata.create_all(connection, tables=tables)
