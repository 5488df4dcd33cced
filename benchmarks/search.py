"""Measure a search among 100,000 photos: from the database rows to the result, and the whole command.

python benchmarks/search.py
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import material
import numpy as np

from crossfilter_inference.collection import Collection
from crossfilter_inference.db.connect import writing
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.search import search

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "search.py"


def make_database(path: Path, n_images: int) -> list[str]:
    """Fill a database with embeddings of 768 dimensions; return the UUIDs."""
    embeddings, _ = material.make_clusters(n_images)
    uuids = [f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(n_images)]
    tables = Tables("SIGLIP2")
    with writing(path) as connection:
        tables.create(connection, tables.embeddings, tables.images)
        rows = ((uuid, pack_embedding(row)) for uuid, row in zip(uuids, embeddings, strict=True))
        connection.connection.cursor().executemany(f"INSERT INTO {tables.embeddings} VALUES (?, ?)", rows)
        images = ((uuid, f"/photos/{uuid}.jpg") for uuid in uuids)
        connection.connection.cursor().executemany(f"INSERT INTO {tables.images} (UUID, PATH) VALUES (?, ?)", images)
    return uuids


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    random = np.random.default_rng(0)
    within, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "photos.sqlite")
        uuids = make_database(database, arguments.photos)
        for number in random.integers(0, len(uuids), arguments.rounds).tolist():
            start = time.perf_counter()
            collection = Collection(database, "SIGLIP2", device="cpu")
            found = search(collection, collection.embeddings[number], 10, without=uuids[number])
            within.append(time.perf_counter() - start)
            if len(found) != 10 or uuids[number] in {photo.uuid for photo in found}:
                raise SystemExit(f"the search found {found}, expected 10 other photos")
            command = [sys.executable, SCRIPT, "--uuid", uuids[number], "--embedding_type", "SIGLIP2"]
            start = time.perf_counter()
            subprocess.run([*command, "--output_embeddings_db", database], check=True, capture_output=True)
            whole.append(time.perf_counter() - start)
    for name, seconds in (("from the database rows to the result", within), ("the whole command, by UUID", whole)):
        print(f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |")


if __name__ == "__main__":
    main()
