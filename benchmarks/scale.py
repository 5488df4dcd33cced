r"""Measure planning, Snakemake's graph and the merge with up to a million photos; write benchmarks/SCALE.md.

The photos are files of one byte, because planning reads only names, sizes and times. The library writes the shard
databases with random rows of 768 floats, as if the encoder had computed them. The workflow merges them.

    PYTHONPATH=workflow python benchmarks/scale.py --sizes 10 10000 100000 1000000 --folder /tmp/scale
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import yaml
from material import DEMO_PHOTOS

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.shards.plan import SHARD_COLUMNS, read_shard_list, shard_lists
from crossfilter_inference.shards.shard import Embedded, write_shard_database
from crossfilter_inference.util.files import digest, read_json

PROJECT = Path(__file__).resolve().parent.parent
N_DIMS = 768
ENCODER = f"""
import numpy as np
from crossfilter_inference.photos.image import Preprocessing
PREPROCESSING = Preprocessing(size=16, resample=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
def resolve(settings):
    return {{"model": "flat", "weights_sha256": "0", "preprocessing": PREPROCESSING.to_json(),
            "dimension": {N_DIMS}, "versions": {{}}}}
def load(provenance, device, n_threads):
    return Encoder(provenance)
class Encoder:
    preprocessing = PREPROCESSING
    def __init__(self, provenance):
        self.provenance = provenance
    def encode_images(self, images):
        rows = images.reshape(len(images), -1)[:, :{N_DIMS}] + np.float32(1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
"""


class Collection:
    """A folder of files named after UUIDs, and the runs on it."""

    def __init__(self, folder: Path, n_photos: int):
        self.folder, self.n_photos = folder, n_photos
        self.photos, self.state = folder / "photos", folder / "results" / "photos" / "FLAT"
        shutil.rmtree(folder, ignore_errors=True)
        for part in range(256):
            (self.photos / f"{part:02x}").mkdir(parents=True)
        for number in range(n_photos):
            name = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
            (self.photos / name[:2] / f"{name}.jpg").write_bytes(b"x")
        (folder / "encoder.py").write_text(ENCODER)
        config = {
            "input_dir": "photos",
            "output_embeddings_db": "results/photos.sqlite",
            "embedding_type": "FLAT",
            "encoders": {"FLAT": {"backend": "encoder.py", "model": "flat"}},
            "reproject_umap_embeddings": False,
            "shard_size": 1000,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def snakemake(self, *options: str) -> tuple[float, float, str]:
        """Run the workflow; return seconds, MB of Snakemake's own process, and its output."""
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), *options),
            *("--cores", "2", "--configfile", "config.yaml"),
        ]
        start = time.perf_counter()
        with tempfile.TemporaryFile() as stream:
            process = subprocess.Popen(command, cwd=self.folder, stdout=stream, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - start
            stream.seek(0)
            output = stream.read().decode(errors="replace")
        if status:
            raise SystemExit(output[-4000:])
        return seconds, usage.ru_maxrss / 1024, output

    def embed(self) -> None:
        """Write every shard database with random rows."""
        random = np.random.default_rng(0)
        provenance = read_json(self.state / "encoder.json")
        for path in shard_lists(self.state / "shards"):
            listed = read_shard_list(path)
            embeddings = random.standard_normal((len(listed), N_DIMS), np.float32)
            embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
            rows = [
                dict(zip(SHARD_COLUMNS, identity, strict=True))
                | dict.fromkeys(Tables(provenance["name"]).facts)
                | {"PATH": "x", "DIGEST": random.bytes(32).hex(), "WIDTH": 4000, "HEIGHT": 3000}
                | {"EMBED_VERSION": provenance["embed_version"], "EMBEDDING": pack_embedding(row), "JPEG": b"x"}
                for identity, row in zip(listed, embeddings, strict=True)
            ]
            output = self.state / "embeddings" / f"{path.stem}.sqlite"
            write_shard_database(output, provenance, digest(listed), rows, [], Embedded())

    def find(self) -> float:
        """Time a listing of the same files with size and timestamp, in seconds."""
        start = time.perf_counter()
        command = ["find", self.photos, "-printf", "%p %s %T@\n"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    def benchmark(self, rule: str) -> tuple[float, float]:
        """Read Snakemake's measurements of a job: seconds, and peak MB."""
        header, values, *_ = (self.state / "benchmarks" / rule / f"{rule}.tsv").read_text().splitlines()
        row = dict(zip(header.split("\t"), values.split("\t"), strict=True))
        return float(row["s"]), float(row["max_rss"])


def measure(folder: Path, n_photos: int, n_rounds: int) -> dict[str, str]:
    """Measure one size."""
    collection = Collection(folder / str(n_photos), n_photos)
    collection.find()
    figures = {"files": f"{n_photos:,}"}
    seconds, memory, _ = collection.snakemake("-n")
    figures["first plan (`snakemake -n`)"] = f"{seconds:.1f} s, {memory:.0f} MB"
    seconds, memory, _ = collection.snakemake("write_manifest", "resolve_encoder")
    figures["first plan, with manifest and shard lists"] = f"{seconds:.1f} s"
    collection.embed()
    seconds, memory, _ = collection.snakemake()
    merge_seconds, merge_memory = collection.benchmark("store_embeddings")
    figures["first merge"] = f"{merge_seconds:.1f} s, {n_photos / merge_seconds:,.0f} rows/s, {merge_memory:.0f} MB"
    ours, theirs = [], []
    for _ in range(n_rounds):
        theirs.append(collection.find())
        seconds, memory, output = collection.snakemake("-n")
        if "Nothing to be done" not in output:
            raise SystemExit(f"a run without new photos had something to do:\n{output[-3000:]}")
        ours.append(seconds)
    figures["nothing new (`snakemake -n`)"] = f"{statistics.median(ours):.1f} s, {memory:.0f} MB"
    figures["`find`, same files"] = f"{statistics.median(theirs):.2f} s"
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    figures["ratio"] = f"{statistics.median(ratios):.1f}"
    for photo in DEMO_PHOTOS[:3]:
        shutil.copy(photo, collection.photos)
    seconds, _, output = collection.snakemake("-n")
    if "new: 3 " not in output:
        raise SystemExit(f"the plan has not found the 3 new photos:\n{output[-3000:]}")
    figures["3 new (`snakemake -n`)"] = f"{seconds:.1f} s"
    seconds, _, output = collection.snakemake()
    if "embedded 3 photos" not in output:
        raise SystemExit(f"the run did not embed the 3 new photos:\n{output[-3000:]}")
    merge_seconds, merge_memory = collection.benchmark("store_embeddings")
    figures["3 new photos, until their rows are in the database"] = f"{seconds:.1f} s"
    figures["merge of 3 new photos"] = f"{merge_seconds:.1f} s, {merge_memory:.0f} MB"
    shutil.rmtree(collection.folder)
    return figures


def main() -> None:
    """Measure every size, and write the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=[10, 10_000, 100_000, 1_000_000])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, help="a folder with room for 8 KB per photo (a temporary one)")
    options.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "SCALE.md")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        columns = [measure(arguments.folder or Path(temporary), size, arguments.rounds) for size in arguments.sizes]
    lines = [[name, *(figures[name] for figures in columns)] for name in columns[0]]
    lines.insert(1, ["---"] * len(lines[0]))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = arguments.output.read_text() if arguments.output.exists() else ""
    before, _, _ = text.partition("| files |")
    arguments.output.write_text(before + table + "\n")
    print(table)


if __name__ == "__main__":
    main()
