"""The rows of a database that must not depend on where the jobs ran."""

from conftest import Collection

from crossfilter_inference.db.tables import Tables

TABLES = {
    "EMBEDDINGS": "*",
    "UMAP_HAVERSINE": "*",
    "UMAP_MODEL": "*",
    "FAILURES": "*",
    "IMAGES": ", ".join(column.name for column in Tables("").images.c if column.name != "PATH"),
}


def tables(collection: Collection) -> dict[str, list[tuple]]:
    """Read all rows, by table."""
    return {
        table: collection.sql(f"SELECT {columns} FROM {{T}}_{table} ORDER BY 1") for table, columns in TABLES.items()
    }
