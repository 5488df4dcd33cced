"""Refuse to mix the embeddings of two encoders in one table.

A new encoder embeds every photo again, and its rows replace the old ones in one transaction. Rows that nothing would
replace are checked before anything is computed: rows of missing photos, and shard databases from elsewhere. Rows of
missing photos stay if only the embed version has changed, and keep theirs in the image table. Rows of unknown origin
are checked where they are adopted (`embed.reuse`); those of missing photos stay if these pass. Rows in the tables of
Crossfilter's application are never mixed with others: they are adopted, or not used.
"""

from collections.abc import Set
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..db import crossfilter
from ..db.connect import reading
from ..db.provenance import recorded_encoder, unknown_rows, with_prefix
from ..db.tables import Tables
from ..encoders.identity import is_another_version, provenance_digest, provenance_to_text, read_encoder
from ..errors import InputError
from ..util.text import counted
from .plan import read_plan, shard_databases
from .shard import read_shard_provenance


def refuse_mixture(
    database: str, plan: str, provenance: dict[str, Any], *, recompute: bool, deleted: Set[str] = frozenset()
) -> None:
    """Refuse an encoder if embeddings of another one would stay in the table.

    This is called before anything is computed: rows of missing photos cannot be recomputed.

    Parameters
    ----------
    database, plan : str
        Paths; the database may be missing.
    provenance : dict
        The contents of `encoder.json`.
    recompute : bool
        Whether every photo is embedded again, so that no row of unknown origin is checked.
    deleted : set of str
        UUIDs of missing photos whose rows this run deletes.

    Raises
    ------
    InputError
        With the difference between the encoders, and how to fix it.
    """
    if not Path(database).exists():
        return
    import numpy as np

    from ..db.embeddings import pack_embedding

    name = provenance["name"]
    table = Tables(name).embeddings
    found = {image.uuid for image in read_plan(plan)[0]}
    with reading(database) as connection:
        recorded = recorded_encoder(connection, name)
        if "digest" not in recorded:
            unknown = unknown_rows(connection, name)
            missing = unknown - found - deleted
            if not missing:
                return
            if recompute or not unknown & found:
                raise gone_rows_of_unknown_origin(name, len(missing), "no photo remains to check them")
            expected = len(pack_embedding(np.zeros(provenance["dimension"])))
            rows = connection.execute(sa.select(table.c.UUID, sa.func.length(table.c.EMBEDDING)))
            others = {length for uuid, length in rows if uuid in missing} - {expected}
            if others:
                why = f"rows of {provenance['model']} have {expected} bytes, and some of these have {min(others)}"
                raise gone_rows_of_unknown_origin(name, len(missing), why)
        elif recorded["digest"] != provenance_digest(provenance) and not is_another_version(recorded, provenance):
            n_gone = len(set(connection.scalars(sa.select(table.c.UUID))) - found - deleted)
            if n_gone:
                raise gone_rows_of_another_encoder(name, n_gone, recorded, provenance_to_text(provenance))


def unused_rows(database: str, plan: str, provenance: dict[str, Any]) -> str:
    """Say why the database's rows of Crossfilter's application are not used; empty if there are none, or they may be.

    Parameters
    ----------
    database, plan : str
        Paths; the database may be missing.
    provenance : dict
        The contents of `encoder.json`.
    """
    if not Path(database).exists():
        return ""
    import numpy as np

    from ..db.embeddings import pack_embedding, unpack_embedding

    table, name = crossfilter.embeddings, provenance["name"]
    n_bytes = len(pack_embedding(np.zeros(provenance["dimension"])))
    with reading(database) as connection:
        unused = crossfilter.adoptable_rows(connection, name) - crossfilter.adoptable_rows(connection, name, n_bytes)
        unused &= {image.uuid for image in read_plan(plan)[0]}
        if not unused:
            return ""
        blob = connection.scalar(sa.select(table.c.SEMANTIC_EMBEDDING).where(table.c.UUID_STRING == min(unused)))
    try:
        n_dims = len(unpack_embedding(blob or b""))
        why = f"have {n_dims:,} dimensions{crossfilter.model_hint(n_dims, name)}"
    except (ValueError, TypeError, KeyError):
        why = "cannot be read"
    return (
        f"{table.name}, of Crossfilter's application, has rows for {counted(len(unused), 'photos')} that are not used: "
        f"they {why}, and those of {provenance['model']} have {provenance['dimension']:,} dimensions"
    )


def refuse_foreign_shards(folder: str, embedding_type: str, to_remove: Set[str] = frozenset()) -> None:
    """Refuse shard databases of another encoder that this run would not rebuild.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    embedding_type : str
    to_remove : set of str
        Shards that this run removes.

    Raises
    ------
    InputError
        With the path of the shard database and the difference.
    """
    encoder = Path(folder, "encoder.json")
    if not encoder.exists():
        return
    for path in shard_databases(folder):
        # An older one of another encoder is rebuilt.
        if path.stem not in to_remove and path.stat().st_mtime_ns >= encoder.stat().st_mtime_ns:
            check_shard(str(path), read_shard_provenance(str(path), embedding_type), read_encoder(encoder))


def check_shard(path: str, recorded: dict[str, str], provenance: dict[str, Any]) -> None:
    """Check that a shard database is of this encoder.

    Parameters
    ----------
    path : str
    recorded : dict
        Provenance of the shard.
    provenance : dict
        The contents of `encoder.json`.

    Raises
    ------
    InputError
        If it is of another one.
    """
    if recorded.get("encoder_digest") != provenance_digest(provenance):
        differences = _differences(with_prefix("encoder_", recorded), provenance_to_text(provenance))
        raise InputError(
            f"the shard database {path!r} comes from another encoder ({differences}); delete it and run the workflow "
            "to embed its photos again"
        )


def gone_rows_of_another_encoder(
    embedding_type: str, n_gone: int, before: dict[str, str], after: dict[str, str]
) -> InputError:
    """Make the error for rows of missing photos that another encoder made.

    Parameters
    ----------
    embedding_type : str
    n_gone : int
        Number of rows that nothing would replace.
    before, after : dict
        Provenance of the recorded encoder, and of the new one.
    """
    return InputError(
        f"{embedding_type}_EMBEDDINGS has {counted(n_gone, 'embeddings')} of missing photos, which cannot be mixed "
        f"with those of another encoder ({_differences(before, after)}); {_FIX}"
    )


def gone_rows_of_unknown_origin(embedding_type: str, n_gone: int, why: str) -> InputError:
    """Make the error for rows of missing photos, of unknown origin."""
    return InputError(
        f"{embedding_type}_EMBEDDINGS has {counted(n_gone, 'embeddings')} of missing photos, of unknown origin, which "
        f"cannot be mixed with those of this encoder ({why}); {_FIX}"
    )


_FIX = (
    "set missing_images: delete to delete them, or use another embedding_type or another database. If they are held "
    "back under missing_images: delete, make their folders readable. Nothing was changed"
)


def _differences(before: dict[str, str], after: dict[str, str]) -> str:
    names = [name for name in sorted(before.keys() & after.keys()) if name not in ("digest", "versions")]
    return "; ".join(f"{name}: {before[name]} -> {after[name]}" for name in names if before[name] != after[name])
