"""A collection that is damaged and verified."""

import argparse
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
import verify as command
import yaml
from conftest import COLOUR_ENCODER
from test_map_job import SETTINGS
from test_merge import Store

from crossfilter_inference.db.connect import reading, recover
from crossfilter_inference.db.digest import digest_rows
from crossfilter_inference.map.job import make_map
from crossfilter_inference.map.store import store_map
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.shards.plan import make_plan, read_shard_lists, write_manifest, write_plan
from crossfilter_inference.util.files import read_json, write_json

LINE = re.compile(r"(ok|FAILED|skipped) +(\w+) +(.*)")
CHECKS = ["database", "embeddings", "digest", "fates", "shards", "provenance", "map"]
UUID = "00000000-0000-4000-8000-{:012d}".format
FAILED_PHOTO = UUID(7)


class Collection(Store):
    """A collection of 7 photos, one that cannot be decoded and a file with another name, in 3 shards, with a map."""

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
            delete_missing=delete_missing,
        )

    def plan(self):
        scan = scan_folders([str(self.photos)], [".jpg"])
        plan = make_plan(read_shard_lists(self.folder), scan.images, scan.rejected, 3)
        write_plan(self.path("plan.tsv"), plan)
        write_manifest(*map(self.path, ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards")))
        return plan

    def run(self, *, delete_missing=False):
        """Do what a run does."""
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

    def verify(self, **options):
        """Run the command; return the state and the text of each check."""
        options = {
            "configfile": [str(self.root / "config.yaml")],
            "sample": 0,
            **dict.fromkeys(("embedding_type", "input_dir", "output_embeddings_db", "device")),
            **options,
        }
        with pytest.raises(SystemExit) as ended:
            command.main(argparse.Namespace(**options))
        *lines, closing = self.capsys.readouterr().out.splitlines()
        found = {name: (state, text) for state, name, text in (LINE.fullmatch(line).groups() for line in lines)}
        failed = [name for name, (state, _) in found.items() if state == "FAILED"]
        assert ended.value.code == (1 if failed else 0)
        assert closing == (f"{len(failed)} of {len(found)} checks failed" if failed else "all is well")
        return found

    def failed(self, **options):
        """Verify; return what the one check that failed says."""
        [failed] = [(name, text) for name, (state, text) in self.verify(**options).items() if state == "FAILED"]
        return failed

    def is_well(self):
        return {state for state, _ in self.verify(sample=20).values()} == {"ok"}

    def sql(self, statement, values=(), database=None):
        connection = sqlite3.connect(database or self.database)
        with connection:
            rows = connection.execute(statement, values).fetchall()
        connection.close()
        return rows

    def stamp_rows(self):
        """Let the recorded digest be that of the rows, so that only a look at them tells what is wrong."""
        with reading(self.database) as connection:
            n_rows, digest = digest_rows(connection, "T")
        for key, value in {"embeddings_rows": str(n_rows), "embeddings_digest": digest}.items():
            self.sql("UPDATE T_PROVENANCE SET VALUE = ? WHERE KEY = ?", (value, key))
        receipt = read_json(self.path("embeddings.json"))
        write_json(self.path("embeddings.json"), {**receipt, "n_embeddings": n_rows, "digest": digest})
        later = Path(self.path("map_stored.json"))
        os.utime(later)

    def rebuild(self):
        self.database.unlink()
        self.run()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection after a run, and a copy, from which it is put back: paths in its manifest are absolute."""
    root = tmp_path_factory.mktemp("verify") / "collection"
    collection = Collection(root)
    collection.run()
    shutil.copytree(root, root.with_name("copy"))
    return collection


@pytest.fixture
def collection(made, capsys):
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("copy"), made.root)
    made.capsys = capsys
    return made
