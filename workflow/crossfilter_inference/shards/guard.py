"""Embeddings of two encoders never stand in one table.

A new encoder embeds every photo again, and its rows replace the old ones in one transaction. What nothing replaces is
looked at before anything is computed: rows of photos that have gone, and shard databases that come from elsewhere. Rows
of unknown origin are checked where they are adopted (`known_rows`); those of photos that have gone stand or fall with
them.
"""

from pathlib import Path

import sqlalchemy as sa

from ..db.connect import reading
from ..db.provenance import recorded_encoder, unknown_rows, with_prefix
from ..db.tables import Tables
from ..encoders.identity import provenance_digest, provenance_to_text
from ..errors import InputError
from ..util.files import read_json
from .plan import read_plan
from .shard import read_shard_provenance


def refuse_mixture(database: str, plan: str, provenance: dict, *, recompute: bool) -> None:
    """Refuse an encoder beside whose embeddings others would stay.

    Called before anything is computed: rows of photos that have gone cannot be made again.

    Parameters
    ----------
    database, plan : str
        Paths; the database may be missing.
    provenance : dict
        What `resolve_encoder` found.
    recompute : bool
        Whether every photo is embedded anew, so that no row of unknown origin is checked.

    Raises
    ------
    InputError
        That shows the difference and the ways out.
    """
    if not Path(database).exists():
        return
    import numpy as np

    from ..db.embeddings import pack_embedding

    name = provenance["name"]
    table = Tables(name).embeddings
    there = {image.uuid for image in read_plan(plan)[0]}
    with reading(database) as connection:
        recorded = recorded_encoder(connection, name)
        if "digest" not in recorded:
            unknown = unknown_rows(connection, name)
            gone = unknown - there
            if not gone:
                return
            if recompute or not unknown & there:
                raise gone_rows_of_unknown_origin(name, len(gone), "no photo is left to check them by")
            expected = len(pack_embedding(np.zeros(provenance["dimension"])))
            rows = connection.execute(sa.select(table.c.UUID, sa.func.length(table.c.EMBEDDING)))
            others = {length for uuid, length in rows if uuid in gone} - {expected}
            if others:
                why = f"{provenance['model']} makes rows of {expected} bytes, but there are some of {min(others)}"
                raise gone_rows_of_unknown_origin(name, len(gone), why)
        elif recorded["digest"] != provenance_digest(provenance):
            n_gone = len(set(connection.scalars(sa.select(table.c.UUID))) - there)
            if n_gone:
                raise gone_rows_of_another_encoder(name, n_gone, recorded, provenance_to_text(provenance))


def refuse_foreign_shards(folder: str, embedding_type: str) -> None:
    """Refuse shard databases that are not of this encoder, and that this run would not make again.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    embedding_type : str

    Raises
    ------
    InputError
        That names the shard database and shows the difference.
    """
    encoder = Path(folder, "encoder.json")
    if not encoder.exists():
        return
    for path in sorted(Path(folder, "embeddings").glob("*.sqlite")):
        if path.stat().st_mtime_ns >= encoder.stat().st_mtime_ns:  # an older one is made again, if it is another's
            check_shard(str(path), read_shard_provenance(str(path), embedding_type), read_json(str(encoder)))


def check_shard(path: str, recorded: dict[str, str], provenance: dict) -> None:
    """Check that a shard database is of this encoder.

    Parameters
    ----------
    path : str
    recorded : dict
        Its own provenance.
    provenance : dict
        The contents of `encoder.json`.

    Raises
    ------
    InputError
        If it is not.
    """
    if recorded["encoder_digest"] != provenance_digest(provenance):
        differences = _differences(with_prefix("encoder_", recorded), provenance_to_text(provenance))
        raise InputError(
            f"the shard database {path!r} comes from another encoder ({differences}): delete it, and its photos are "
            "embedded again"
        )


def gone_rows_of_another_encoder(
    embedding_type: str, n_gone: int, before: dict[str, str], after: dict[str, str]
) -> InputError:
    """Say how two encoders differ and what to do.

    Parameters
    ----------
    embedding_type : str
    n_gone : int
        Rows that nothing would replace.
    before, after : dict
        What the database records of the one encoder, and what it would record of the other.
    """
    return InputError(
        f"{embedding_type}_EMBEDDINGS holds {n_gone} embeddings of photos that have gone, which cannot stand beside "
        f"those of another encoder ({_differences(before, after)}): {_WAYS_OUT}"
    )


def gone_rows_of_unknown_origin(embedding_type: str, n_gone: int, why: str) -> InputError:
    """Say why rows of which nothing is on record cannot stay."""
    return InputError(
        f"{embedding_type}_EMBEDDINGS holds {n_gone} embeddings of unknown origin, of photos that have gone, which "
        f"cannot stand beside those of this encoder ({why}): {_WAYS_OUT}"
    )


_WAYS_OUT = "set missing_images: delete to give them up, or use another embedding_type, or another database"


def _differences(before: dict[str, str], after: dict[str, str]) -> str:
    names = [name for name in sorted(before.keys() & after.keys()) if name not in ("digest", "versions")]
    return "; ".join(f"{name}: {before[name]} -> {after[name]}" for name in names if before[name] != after[name])
