"""Measure a search among 100,000 photos: from the database rows to the result, the whole command, and the server.

python benchmarks/search.py
"""

import argparse
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import material
import numpy as np
from page import make_contents

from crossfilter_inference.collection import Collection
from crossfilter_inference.db.connect import writing
from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.search import search
from crossfilter_inference.serve import Site, serve
from crossfilter_inference.util.files import write_json

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "search.py"
WORDS = ("dog", "fish", "pizza", "hammer", "bird", "castle", "teapot", "ship")  # which the small encoder knows


def make_database(path: Path, embedding_type: str, n_images: int, n_dims: int) -> list[str]:
    """Fill a database with embeddings; return the UUIDs."""
    embeddings, _ = material.make_clusters(n_images, n_dims)
    uuids = [f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(n_images)]
    tables = Tables(embedding_type)
    with writing(path) as connection:
        tables.create(connection, tables.embeddings, tables.images)
        rows = ((uuid, pack_embedding(row)) for uuid, row in zip(uuids, embeddings, strict=True))
        connection.connection.cursor().executemany(f"INSERT INTO {tables.embeddings} VALUES (?, ?)", rows)
        images = ((uuid, f"/photos/{uuid}.jpg") for uuid in uuids)
        connection.connection.cursor().executemany(f"INSERT INTO {tables.images} (UUID, PATH) VALUES (?, ?)", images)
    return uuids


class Mapped(Collection):
    """A collection with an invented map."""

    def read_map(self) -> MapContents:
        return make_contents(len(self.uuids))

    def find_words(self) -> list:
        return []


def measure_server(database: Path, n_images: int, n_rounds: int) -> tuple[list[float], list[float]]:
    """Search for words, through HTTP and the encoder; return the seconds of the first search, and of later ones."""
    make_database(database, "EFFICIENTNET_LITE0", n_images, 1280)
    folder = database.with_suffix("") / "EFFICIENTNET_LITE0"
    folder.mkdir(parents=True)
    settings = {"backend": "efficientnet_lite0", "dtype": "auto", "runtime": "torch"}
    write_json(folder / "encoder.json", resolve_encoder("EFFICIENTNET_LITE0", settings))
    links: queue.Queue[str] = queue.Queue()
    site = Site(lambda: Mapped(database, "EFFICIENTNET_LITE0", device="cpu"))
    threading.Thread(target=serve, args=[site], kwargs={"when_ready": links.put}, daemon=True).start()
    link = urllib.parse.urlsplit(links.get(timeout=60))
    client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    client.open(link.geturl()).read()  # the page; it gives the cookie
    seconds = []
    for number in range(n_rounds + 1):
        query = urllib.parse.urlencode({"text": WORDS[number % len(WORDS)]})
        start = time.perf_counter()
        with client.open(f"http://{link.netloc}/search?{query}") as answer:
            answer.read()
        seconds.append(time.perf_counter() - start)
    return seconds[:1], seconds[1:]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    random = np.random.default_rng(0)
    within, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "photos.sqlite")
        uuids = make_database(database, "SIGLIP2", arguments.photos, 768)
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
        first, later = measure_server(Path(folder, "served.sqlite"), arguments.photos, 4 * arguments.rounds)
    for name, seconds in (
        ("from the database rows to the result", within),
        ("the whole command, by UUID", whole),
        ("the server's first search by text, which loads the encoder", first),
        ("the server's later searches by text", later),
    ):
        print(f"| {name} | {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |")


if __name__ == "__main__":
    main()
