r"""Compare the speed of the embedding stage with the bare model, the original tool and other libraries.

The candidates run in turns in one process, with a full-size checkpoint and random weights. Figures are medians over the
rounds. It prints a table and writes it to RESULTS.md next to this file.

Example:
    make bench
    make bench OPTIONS="--rounds 1 --photos 20"
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from material import SIZES, make_checkpoint, make_photos, plan_shard
from others import Reference, SentenceTransformers, TransformersPipeline

from crossfilter_inference.db.connect import reading, writing
from crossfilter_inference.db.embeddings import pack_embedding, read_embeddings
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.embed import decode_process as decode
from crossfilter_inference.embed import job as embed
from crossfilter_inference.embed.decode_process import Decoded, DecodeProcess
from crossfilter_inference.encoders import registry
from crossfilter_inference.encoders.protocol import Encoder
from crossfilter_inference.photos.exif import Exif
from crossfilter_inference.photos.image import LoadedImage
from crossfilter_inference.shards.plan import PlannedImage, read_plan

PROJECT = Path(__file__).resolve().parent.parent
CPU_SETTINGS = [("float32", "torch"), ("float32", "openvino"), ("bfloat16", "torch"), ("bfloat16", "openvino")]
GPU_SETTINGS = [("bfloat16", "torch")]
MEGAPIXELS = (12, 1)
N_CORES = os.cpu_count()


class Bench:
    """Times in seconds per photo, by measurement, over the rounds."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        self.folder, self.n_photos, self.device = folder, arguments.photos, arguments.device
        self.checkpoint = make_checkpoint(folder / arguments.model, arguments.model)
        self.shards = {}
        for megapixels in MEGAPIXELS:
            self.shards[megapixels] = folder / f"shard-{megapixels}"
            shutil.rmtree(self.shards[megapixels], ignore_errors=True)
            plan_shard(self.shards[megapixels], make_photos(folder / f"photos-{megapixels}", megapixels), self.n_photos)
        self.provenances, self.encoders = {}, {}
        for dtype, runtime in CPU_SETTINGS if self.device == "cpu" else GPU_SETTINGS:
            settings = {"backend": "siglip", "model": self.checkpoint, "revision": "main"}
            provenance = registry.resolve_encoder("BENCH", {**settings, "dtype": dtype, "runtime": runtime})
            encoder = registry.load_encoder(provenance, self.device, N_CORES)
            encoder.encode_images(self.pixels(encoder))
            self.provenances[dtype, runtime], self.encoders[dtype, runtime] = provenance, encoder
        self.preprocessing = encoder.preprocessing
        self.seconds: dict[tuple, list[float]] = defaultdict(list)
        self.rows: dict[tuple, np.ndarray] = {}

    def pixels(self, encoder: Encoder) -> np.ndarray:
        """Make one batch of ready pixels."""
        shape = (encoder.batch_size, encoder.preprocessing.size, encoder.preprocessing.size, 3)
        return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)

    def measure(self, key: tuple, n_photos: int, work: Callable[[], object]) -> None:
        """Time a call that handles `n_photos` photos."""
        start = time.perf_counter()
        work()
        self.seconds[key].append((time.perf_counter() - start) / n_photos)

    def median(self, *key: object) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.seconds[key])

    def images(self, megapixels: int) -> list[PlannedImage]:
        """List the photos of a shard."""
        return read_plan(self.shards[megapixels] / "plan.tsv")[0]

    def bare(self, setting: tuple) -> None:
        """Run the bare model on ready pixels: with as many calls at once as the encoder supports."""
        encoder = self.encoders[setting]
        torch.set_num_threads(1)
        pixels = self.pixels(encoder)
        n_calls = max(2, self.n_photos // (2 * len(pixels) * encoder.n_streams)) * encoder.n_streams
        with ThreadPoolExecutor(encoder.n_streams) as pool:
            self.measure(
                ("bare", *setting),
                n_calls * len(pixels),
                lambda: list(pool.map(encoder.encode_images, [pixels] * n_calls)),
            )

    def preprocess(self, megapixels: int) -> None:
        """Run the bare preprocessing on all cores."""
        images = self.images(megapixels)
        with ThreadPoolExecutor(N_CORES) as pool:
            self.measure(
                ("preprocess", megapixels),
                len(images),
                lambda: list(pool.map(decode.decode_image, images, [self.preprocessing] * len(images))),
            )

    def ours(self, setting: tuple, megapixels: int) -> None:
        """Run our loop like the job of a shard, but without loading the encoder."""
        shard = self.shards[megapixels]
        (shard / "encoder.json").write_text(json.dumps(self.provenances[setting]))
        torch.set_num_threads(1)
        embed.load_encoder = lambda *_: self.encoders[setting]
        database = shard / "embeddings" / "000001.sqlite"
        self.measure(("ours", *setting, megapixels), self.n_photos, lambda: embed_shard(shard, database, self.device))
        with reading(database) as connection:
            self.rows[*setting, megapixels] = read_embeddings(connection, "BENCH")[1]

    def other(self, name: str, megapixels: int, embed_photos: Callable[[list[str]], object]) -> None:
        """Run another program on half of the photos."""
        torch.set_num_threads(N_CORES)
        paths = [image.path for image in self.images(megapixels)][: max(10, self.n_photos // 2)]
        self.measure((name, megapixels), len(paths), lambda: self.rows.update({name: embed_photos(paths)}))


def embed_shard(shard: Path, database: Path, device: str) -> None:
    """Embed a shard into its database."""
    paths = (shard / "shards" / "000001.tsv", shard / "plan.tsv", shard / "encoder.json", database)
    embed.embed_shard(*map(str, paths), database=None, batch_size=None, n_threads=N_CORES, device=device)


def one_minus_cosine(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compare rows of unit length, one by one."""
    return 1 - (rows.astype(float) * others).sum(axis=1)


def on_cpu(bench: Bench, n_rounds: int) -> list[tuple[str, str, str]]:
    """Measure on a CPU; return rows of figure, value and target."""
    reference = Reference(bench.checkpoint)
    alternatives = {
        "transformers pipeline": TransformersPipeline(bench.checkpoint, 0).embed,
        "transformers pipeline, a loader per core": TransformersPipeline(bench.checkpoint, N_CORES).embed,
        "sentence-transformers": SentenceTransformers(bench.checkpoint).embed,
    }
    cosines: dict[str, list[np.ndarray]] = defaultdict(list)
    for number in range(n_rounds):
        for megapixels in MEGAPIXELS:
            bench.preprocess(megapixels)
            bench.other("reference preprocessing", megapixels, lambda paths: [reference.preprocess(paths), None][1])
            for setting in bench.encoders:
                bench.bare(setting)
                bench.ours(setting, megapixels)
            database = bench.folder / "reference.sqlite"
            bench.other("reference", megapixels, lambda paths, database=database: reference.embed(paths, database))
            for name, embed_photos in alternatives.items():
                bench.other(name, megapixels, embed_photos)
            rows = bench.rows["float32", "torch", megapixels]
            cosines["reference"].append(one_minus_cosine(rows[: len(bench.rows["reference"])], bench.rows["reference"]))
            for setting in CPU_SETTINGS[1:]:
                cosines[" ".join(setting)].append(one_minus_cosine(bench.rows[*setting, megapixels], rows))
        print(f"round {number + 1} of {n_rounds}", flush=True)
    table = []
    for megapixels in MEGAPIXELS:
        ours = {setting: bench.median("ours", *setting, megapixels) for setting in CPU_SETTINGS}
        for setting, seconds in ours.items():
            limit = bench.median("bare", *setting) + bench.median("preprocess", megapixels)
            wanted = {"float32": ".97", "bfloat16": ".95"}[setting[0]]
            rates = f"({1 / seconds:.2f} of {1 / limit:.2f} images/s)"
            name = f"our loop / limit, {' '.join(setting)}, {megapixels} MP {rates}"
            table.append((name, f"{limit / seconds:.3f}", wanted))
        theirs = bench.median("reference", megapixels)
        fastest = min(ours, key=ours.get)
        table += [
            (
                f"our loop float32 torch / reference loop, {megapixels} MP ({1 / theirs:.2f} images/s)",
                f"{theirs / ours['float32', 'torch']:.2f}",
                "1.30" if megapixels == 12 else "",
            ),
            (
                f"our loop {' '.join(fastest)} (fastest here) / reference loop, {megapixels} MP",
                f"{theirs / ours[fastest]:.2f}",
                {12: "3.0", 1: "2.4"}[megapixels],
            ),
        ]
        for name in alternatives:
            seconds = bench.median(name, megapixels)
            table.append(
                (
                    f"our loop float32 torch / {name}, {megapixels} MP ({1 / seconds:.2f} images/s)",
                    f"{seconds / ours['float32', 'torch']:.2f}",
                    {12: "1.25", 1: "1.0"}[megapixels],
                )
            )
        ratio = bench.median("reference preprocessing", megapixels) / bench.median("preprocess", megapixels)
        milliseconds = 1e3 * bench.median("preprocess", megapixels)
        name = f"preprocessing, {megapixels} MP, speed-up over the reference ({milliseconds:.1f} ms/photo on all cores)"
        table.append((name, f"{ratio:.1f}", "6" if megapixels == 12 else ""))
    for name, values in cosines.items():
        values = np.concatenate(values)
        against = "float32 rows against the reference" if name == "reference" else f"{name} rows against float32 torch"
        median = ", median 1e-5" if name == "reference" else ""
        table.append(
            (f"1 - cosine of {against}", f"{values.max():.1e}, median {np.median(values):.1e}", f"at most 1e-4{median}")
        )
    return table


def on_gpu(bench: Bench, n_rounds: int) -> list[tuple[str, str, str]]:
    """Measure on a GPU: the loop on photos and on ready pixels, against the slower of its two parts."""
    [setting] = bench.encoders
    blank = np.zeros((bench.preprocessing.size,) * 2 + (3,), np.uint8)
    decode_photo = DecodeProcess.decode

    def ready(process: DecodeProcess, image: PlannedImage) -> Decoded:
        loaded = LoadedImage(blank, b"", 1, 1, Exif())
        return Decoded(image, image.uuid, loaded, seconds=0)

    for _ in range(n_rounds):
        bench.bare(setting)
        for megapixels in MEGAPIXELS:
            bench.preprocess(megapixels)
            bench.ours(setting, megapixels)
        DecodeProcess.decode = ready
        bench.ours(setting, MEGAPIXELS[0])
        bench.seconds["ours", *setting, "ready"].append(bench.seconds["ours", *setting, MEGAPIXELS[0]].pop())
        DecodeProcess.decode = decode_photo
    bare = bench.median("bare", *setting)
    table = []
    for what in (*MEGAPIXELS, "ready"):
        seconds = bench.median("ours", *setting, what)
        limit = bare if what == "ready" else max(bare, bench.median("preprocess", what))
        photos = "ready pixels" if what == "ready" else f"{what} MP, {N_CORES} processes"
        name = f"our loop / limit, {' '.join(setting)}, {photos} ({1 / seconds:.0f} of {1 / limit:.0f} images/s)"
        table.append((name, f"{limit / seconds:.2f}", ".90"))
    return table


def memory(folder: Path, n_rounds: int, n_small: int = 200, n_large: int = 2000) -> tuple[str, str, str]:
    """Compare the peak memory of two jobs with the small encoder, which itself needs little memory."""
    photos = make_photos(folder / "photos-1", 1)
    provenance = registry.resolve_encoder("BENCH", {"backend": "efficientnet_lite0", "dtype": "float32"})
    peaks: dict[int, list[float]] = defaultdict(list)
    for _ in range(n_rounds):
        for n_photos in (n_small, n_large):
            shard = folder / f"memory-{n_photos}"
            shutil.rmtree(shard, ignore_errors=True)
            plan_shard(shard, photos, n_photos)
            (shard / "encoder.json").write_text(json.dumps(provenance))
            peaks[n_photos].append(run(job(shard)))
    small, large = (statistics.median(peaks[n_photos]) for n_photos in (n_small, n_large))
    name = f"peak memory for {n_large:,} photos / for {n_small} ({large:.0f} / {small:.0f} MB)"
    return name, f"{large / small:.3f}", "at most 1.05"


def start_up(bench: Bench, n_rounds: int) -> tuple[str, str, str]:
    """Compare the job of one photo with importing the libraries and loading the weights."""
    shard = bench.folder / "start-up"
    shutil.rmtree(shard, ignore_errors=True)
    plan_shard(shard, bench.folder / "photos-1", 1)
    (shard / "encoder.json").write_text(json.dumps(bench.provenances["float32", "torch"]))
    imports = (
        "import torch, transformers; transformers.SiglipVisionModel.from_pretrained"
        f"({bench.checkpoint!r}, dtype=torch.float32)"
    )
    for _ in range(n_rounds):
        bench.measure(("start-up",), 1, lambda: run(job(shard, "--batch_size", "1")))
        bench.measure(("imports",), 1, lambda: run([sys.executable, "-c", imports]))
    ours, theirs = bench.median("start-up"), bench.median("imports")
    name = f"job of one photo, start to end / import torch, transformers, load weights ({ours:.1f} / {theirs:.1f} s)"
    return name, f"{ours / theirs:.2f}", "at most 1.3"


def matrix(folder: Path, n_rounds: int, n_rows: int = 100_000, n_dims: int = 768) -> tuple[str, str, str]:
    """Compare reading all rows of a database with reading the same floats from a file."""
    database, file = folder / "rows.sqlite", folder / "rows.npy"
    embeddings = np.random.default_rng(0).normal(size=(n_rows, n_dims)).astype(np.float32)
    np.save(file, embeddings)
    database.unlink(missing_ok=True)
    table = Tables("BENCH").embeddings
    with writing(database) as connection:
        table.create(connection)
        for start in range(n_rows // 1000):  # as the store leaves them: shard by shard, in the order of UUIDs in each
            numbers = range(start, n_rows, n_rows // 1000)
            rows = [{"UUID": f"{n:036d}", "EMBEDDING": pack_embedding(embeddings[n])} for n in numbers]
            connection.execute(table.insert(), rows)
    program = (
        "import sys, time, numpy; from crossfilter_inference.db.connect import reading\n"
        "from crossfilter_inference.db.embeddings import read_embeddings\n"
        "for _ in range(int(sys.argv[3])):\n"
        "    start = time.perf_counter()\n"
        "    with reading(sys.argv[1]) as connection: read_embeddings(connection, 'BENCH')\n"
        "    middle = time.perf_counter(); numpy.load(sys.argv[2]); print(middle - start, time.perf_counter() - middle)"
    )
    # In a process of its own, so that neither reuses allocated memory.
    command = [sys.executable, "-c", program, str(database), str(file), str(n_rounds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours, theirs = np.median([[float(number) for number in line.split()] for line in output.splitlines()], axis=0)
    name = f"reading {n_rows:,} rows into a matrix / reading an .npy file ({ours:.2f} / {theirs:.2f} s)"
    return name, f"{ours / theirs:.1f}", "at most 5"


def job(shard: Path, *options: str) -> list[str]:
    """Write the command of a shard's job, as Snakemake would run it."""
    return [
        *(sys.executable, str(PROJECT / "scripts" / "embed_shard.py"), "--plan", str(shard / "plan.tsv")),
        *("--shard", str(shard / "shards" / "000001.tsv"), "--encoder", str(shard / "encoder.json")),
        *("--output", str(shard / "embeddings" / "000001.sqlite"), "--threads", str(N_CORES), *options),
    ]


def run(command: list[str]) -> float:
    """Run a program, which must succeed; return its peak memory in MB."""
    # A small process in between: a child's peak starts at the memory of its parent.
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", program, *command]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def machine(device: str) -> str:
    """Describe the origin of the figures, in one paragraph."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = sorted(set(cpuinfo.split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    packages = ("torch", "transformers", "openvino", "pillow", "sentence-transformers")
    parts = [f"{N_CORES} cores of {models[0] if models else platform.processor()} ({', '.join(flags)})"]
    parts += [torch.cuda.get_device_name()] if device == "cuda" else []
    parts += [f"Python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages)]
    return "; ".join(parts)


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="times that everything is measured (%(default)s)")
    options.add_argument("--photos", type=int, default=80, help="photos for our loop, in each round (%(default)s)")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    options.add_argument("--model", default="base-patch16-224", choices=SIZES)
    options.add_argument("--folder", type=Path, help="where photos and checkpoint are made and kept")
    options.add_argument("--output", type=Path, default=Path(__file__).parent / "RESULTS.md")
    arguments = options.parse_args()
    folder = arguments.folder or Path(tempfile.gettempdir()) / "crossfilter-benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, arguments)
    if arguments.device == "cuda":
        table = on_gpu(bench, arguments.rounds)
    else:
        table = on_cpu(bench, arguments.rounds)
        table += [start_up(bench, arguments.rounds), matrix(folder, arguments.rounds), memory(folder, arguments.rounds)]
    lines = [
        "# Embedding speed",
        "",
        "Written by `benchmarks/embedding.py`, a part of `make bench`. *Limit* is the bare model on decoded images; "
        "*reference loop* is the original tool's loop with the model loaded once. MP is megapixels.",
        "",
        f"{machine(arguments.device)}. SigLIP {arguments.model} with random weights, photos of 12 and 1 megapixels. "
        f"Medians of {arguments.rounds} rounds with {arguments.photos} photos of each size.",
        "",
        "| figure | measured | target |",
        "|---|---|---|",
        *(f"| {name} | {value} | {wanted} |" for name, value, wanted in table),
    ]
    arguments.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
