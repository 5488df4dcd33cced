"""Store the map in the database, in one transaction: the model as one row, and the position of every photo."""

import hashlib
import json
from pathlib import Path

import sqlalchemy as sa

from ..db.connect import writing
from ..db.photos_view import create_photos_view
from ..db.provenance import write_provenance
from ..db.tables import Tables, columns_in, read_provenance
from ..util.files import read_json, write_json
from .files import read_positions


def store_map(
    embedding_type: str, database: str, model: str, map_table: str, quality: str, receipt: str, *, generation: int
) -> int:
    """Store the UMAP model and the position of every photo in the database.

    Parameters
    ----------
    embedding_type, database : str
    model, map_table, quality : str
        Paths of `umap_model.pkl`, `map.tsv` and `map_quality.json`.
    receipt : str
        Path; written last.
    generation : int
        Number to write to the receipt.

    Returns
    -------
    int
        Number of photos on the map.

    Raises
    ------
    InputError
        If a file of the map is damaged; the database is unchanged.
    NewerFormat
        If a newer version wrote this embedding type; the database is unchanged.
    UnusableDatabase
        If SQLite cannot write it.
    """
    tables = Tables(embedding_type)
    pickled = Path(model).read_bytes()
    names = tables.umap_haversine.c.keys()
    uuids, latitude, longitude = read_positions(map_table)
    rows = [
        dict(zip(names, row, strict=True)) for row in zip(uuids, latitude.tolist(), longitude.tolist(), strict=True)
    ]
    digest = hashlib.sha256(pickled + Path(map_table).read_bytes()).hexdigest()
    with writing(database) as connection:
        if read_provenance(connection, embedding_type).get("map_digest") != digest:
            for table in (tables.umap_model, tables.umap_haversine):
                if columns_in(connection, table) == table.c.keys():  # it may have columns and indexes of the user
                    connection.execute(sa.delete(table))
                else:
                    table.drop(connection, checkfirst=True)
                    table.create(connection)
            connection.execute(sa.insert(tables.umap_model), {"MODEL": pickled})
            connection.execute(sa.insert(tables.umap_haversine), rows)
        figures = {key: value for key, value in read_json(quality).items() if value is not None}
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in figures.items()}
        values |= {"digest": digest, "model_digest": hashlib.sha256(pickled).hexdigest()}
        write_provenance(connection, embedding_type, "map_", values)
        create_photos_view(connection)
    write_json(receipt, {"generation": generation, "n_rows": len(rows), "digest": digest})
    return len(rows)
