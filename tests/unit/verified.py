"""A collection to damage and verify."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import COLOUR_ENCODER
from test_map_job import SETTINGS
from test_merge import Store, removed

from crossfilter_inference.config import read_config
from crossfilter_inference.db.connect import reading, recover
from crossfilter_inference.db.digest import digest_rows
from crossfilter_inference.map.contents import MapFiles
from crossfilter_inference.map.job import make_map
from crossfilter_inference.map.store import store_map
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.shards.plan import make_plan, read_plan, read_shard_lists, write_manifest, write_plan
from crossfilter_inference.util.files import read_json, write_json
from crossfilter_inference.verify.checks import verify
from crossfilter_inference.view.job import draw_map
from crossfilter_inference.view.page import DEFAULTS

CHECKS = ["database", "embeddings", "digest", "outcomes", "shards", "provenance", "map", "files", "thumbnails"]
UUID = "00000000-0000-4000-8000-{:012d}".format
FAILED_PHOTO = UUID(7)


class Collection(Store):
    """Seven photos, an undecodable one and a rejected file, in three shards, with a map."""

    def __init__(self, root):
        self.root, self.database, self.photos = root, root / "x.sqlite", root / "photos"
        self.photos.mkdir(parents=True)
        (root / "x" / "T").mkdir(parents=True)
        super().__init__(root / "x" / "T")
        config = {
            "input_dir": str(self.photos),
            "output_embeddings_db": str(self.database),
            "embedding_type": "T",
            "encoders": {"T": {"backend": str(COLOUR_ENCODER), "model": "model"}},
        }
        self.configure(**config)
        for number in range(7):
            self.photo(number, source=number)
        (self.photos / f"{FAILED_PHOTO}.jpg").write_text("broken")
        (self.photos / "holiday.jpg").write_text("no photo of the collection")

    def configure(self, **changes):
        path = self.root / "config.yaml"
        before = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({**before, **changes}))

    def photo(self, number, source=0, mtime_ns=1):
        super().photo(number, source, mtime_ns)
        made = Path(self.images[number].path)
        shutil.move(made, self.photos / made.name)

    def merge(self, *, delete_missing=False):
        return store_embeddings(
            *(self.path("encoder.json"), self.path("manifest.tsv"), str(self.database)),
            *map(self.path, ("shards", "embeddings", "embeddings.json")),
            generation=1,
            deleted=removed(self.folder, read_plan(self.path("plan.tsv"))[0]) if delete_missing else set(),
        )

    def plan(self):
        scan = scan_folders([str(self.photos)], [".jpg"])
        plan = make_plan(read_shard_lists(self.folder), scan.images, scan.rejected, 3)
        write_plan(self.path("plan.tsv"), plan)
        write_manifest(*map(self.path, ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")))
        return plan

    def run(self, *, delete_missing=False):
        """Do the work of a run."""
        if not (self.folder / "encoder.json").exists():
            self.resolve("model")
        if self.database.exists():
            recover(self.database)
        for shard in sorted({image.shard for image in self.plan().images}):
            self.embed(shard, database=str(self.database))
        self.merge(delete_missing=delete_missing)
        model, table, quality, receipt = map(
            self.path, ("umap_model.pkl", "map.tsv", "map_quality.json", "map_stored.json")
        )
        outputs = (model, table, self.path("neighbours.npz"), quality)
        make_map(self.path("embeddings.json"), str(self.database), "T", SETTINGS, "", outputs, 2)
        store_map("T", str(self.database), model, table, quality, receipt, generation=1)

    def draw(self):
        paths = map(self.path, ("map.tsv", "neighbours.npz", "map_quality.json"))
        files = MapFiles(*paths, str(self.database), self.path("embeddings"))
        draw_map("T", files, DEFAULTS, *map(self.path, ("map.html", "map.png", "map.svg")))

    def config(self, **changes):
        return read_config([self.root / "config.yaml"], changes)

    def verify(self, sample=0, **changes):
        """Verify, with changes of the configuration; return state and text of each check by its name."""
        config, n_threads = self.config(**changes), os.cpu_count() or 1
        checks = verify(config, n_sample=sample, n_threads=n_threads, backends=[config.encoder.backend])
        return {check.name: (check.state, check.text) for check in checks}

    def failed(self, sample=0):
        """Verify; return name and text of the only check that failed."""
        [failed] = [(name, text) for name, (state, text) in self.verify(sample).items() if state == "FAILED"]
        return failed

    def passes(self):
        """Verify, with a sample; return whether every check passed."""
        return {state for state, _ in self.verify(sample=20).values()} == {"ok"}

    def sql(self, statement, values=(), database=None):
        connection = sqlite3.connect(database or self.database)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def stamp_rows(self):
        """Record the digest of the current rows, so that only their contents are wrong."""
        with reading(self.database) as connection:
            n_rows, digest = digest_rows(connection, "T")
        for key, value in {"embeddings_rows": str(n_rows), "embeddings_digest": digest}.items():
            self.sql("UPDATE T_PROVENANCE SET VALUE = ? WHERE KEY = ?", (value, key))
        receipt = read_json(self.path("embeddings.json"))
        write_json(self.path("embeddings.json"), {**receipt, "n_embeddings": n_rows, "digest": digest})
        os.utime(self.path("map_stored.json"))

    def rebuild(self):
        self.database.unlink()
        self.run()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection after a run, and a copy to restore it from: the paths in its manifest are absolute."""
    root = tmp_path_factory.mktemp("verify") / "collection"
    collection = Collection(root)
    collection.run()
    collection.draw()
    shutil.copytree(root, root.with_name("copy"))
    return collection


@pytest.fixture
def collection(made):
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("copy"), made.root)
    return made
