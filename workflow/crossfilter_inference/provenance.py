"""Embeddings of two encoders never stand in one table.

A new encoder embeds every photo again, and its rows replace the old ones in one transaction. Rows of photos that have
gone cannot be made again, so an encoder that would leave them beside its own is refused.
"""

from pathlib import Path

import sqlalchemy as sa

from .database import Tables, read_provenance, reading, with_prefix
from .encoders import provenance_digest, provenance_to_text
from .errors import InputError
from .plan import read_plan


def refuse_mixture(database: str, plan: str, provenance: dict) -> None:
    """Refuse an encoder beside whose embeddings those of another one would stay.

    Called before anything is computed: rows of photos that have gone cannot be made again.

    Parameters
    ----------
    database, plan : str
        Paths; the database may be missing.
    provenance : dict
        What `resolve_encoder` found.

    Raises
    ------
    InputError
        That shows the difference and the ways out.
    """
    if not Path(database).exists():
        return
    table = Tables(provenance["name"]).embeddings
    with reading(database) as connection:
        recorded = with_prefix("encoder_", read_provenance(connection, provenance["name"]))
        if recorded.get("digest") in (None, provenance_digest(provenance)):
            return
        n_stay = len(set(connection.scalars(sa.select(table.c.UUID))) - {image.uuid for image in read_plan(plan)[0]})
    if n_stay:
        raise InputError(describe_mixture(table.name, n_stay, recorded, provenance_to_text(provenance)))


def describe_mixture(table_name: str, n_stay: int, before: dict[str, str], after: dict[str, str]) -> str:
    """Say in one line how two encoders differ and what to do.

    Parameters
    ----------
    table_name : str
    n_stay : int
        Rows that nothing would replace.
    before, after : dict
        What the database records of the one encoder, and what it would record of the other.
    """
    names = [name for name in sorted(before.keys() & after.keys()) if name not in ("digest", "versions")]
    changes = [f"{name}: {before[name]} -> {after[name]}" for name in names if before[name] != after[name]]
    return (
        f"{table_name} holds {n_stay} embeddings of photos that have gone, which cannot stand beside those of another "
        f"encoder ({'; '.join(changes)}): set missing_images: delete to give them up, or use another embedding_type, "
        "or another database"
    )
