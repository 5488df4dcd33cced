"""The table `<TYPE>_PROVENANCE`: the encoder and the map that a database was made with, as keys and values.

The prefix of a key names the writer: `encoder_`, `embeddings_`, `map_`; in shards `shard_`, `timing_`. The key
`format_version` belongs to `tables`.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from .tables import VERSION_COLUMN, VERSION_KEY, Tables, columns_in, read_provenance


def recorded_encoder(connection: Connection, embedding_type: str) -> dict[str, str]:
    """Read the provenance of the encoder, by key without prefix; empty if nothing is recorded."""
    return with_prefix("encoder_", read_provenance(connection, embedding_type))


def unknown_rows(connection: Connection, embedding_type: str) -> set[str]:
    """Find the embeddings without a row in `<TYPE>_IMAGES`: those that the original tool wrote, for example.

    Returns
    -------
    set of str
        Their UUIDs.
    """
    tables = Tables(embedding_type)
    names = sa.inspect(connection).get_table_names()
    if tables.embeddings.name not in names:
        return set()
    query = sa.select(tables.embeddings.c.UUID)
    if tables.images.name in names:
        query = query.where(tables.embeddings.c.UUID.not_in(sa.select(tables.images.c.UUID)))
    return set(connection.scalars(query))


def other_versions(connection: Connection, embedding_type: str) -> dict[int, int]:
    """Count the embeddings of another embed version than the recorded encoder's: of missing photos, before an upgrade.

    Returns
    -------
    dict of int
        Number of rows, by their embed version.
    """
    images, recorded = Tables(embedding_type).images, read_provenance(connection, embedding_type).get(VERSION_KEY)
    if recorded is None or VERSION_COLUMN not in columns_in(connection, images):
        return {}
    version = images.c[VERSION_COLUMN]
    query = sa.select(version, sa.func.count()).where(sa.cast(version, sa.TEXT) != recorded).group_by(version)
    return dict(connection.execute(query).tuples().all())


def write_provenance(connection: Connection, embedding_type: str, prefix: str, values: dict[str, str]) -> None:
    """Replace all values whose keys start with `prefix`."""
    table = Tables(embedding_type).provenance
    connection.execute(sa.delete(table).where(table.c.KEY.startswith(prefix, autoescape=True)))
    connection.execute(sa.insert(table), [{"KEY": f"{prefix}{key}", "VALUE": value} for key, value in values.items()])


def with_prefix(prefix: str, provenance: dict[str, str]) -> dict[str, str]:
    """Select the values whose keys start with `prefix`, by the rest of the key."""
    return {key.removeprefix(prefix): value for key, value in provenance.items() if key.startswith(prefix)}
