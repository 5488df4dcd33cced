r"""Compare the speed of the embedding stage with the bare model, the original tool and other libraries.

The candidates run in turns in one process, with a full-size checkpoint and random weights. Figures are medians over the
rounds. It prints a table and writes it to a file next to this one: RESULTS.md on a CPU, GPU.md on a GPU. Settings that
this machine cannot run are left out.

Example:
    make bench
    make bench OPTIONS="--rounds 1 --photos 20"
    PYTHONPATH=workflow python benchmarks/embedding.py --device cuda --photos 2000 --rounds 3
"""

import argparse
import json
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
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
from material import N_CORES, SIZES, make_checkpoint, make_photos, plan_shard

from crossfilter_inference.db.connect import reading, writing
from crossfilter_inference.db.embeddings import pack_embedding, read_embeddings
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.embed import batches
from crossfilter_inference.embed import job as embed
from crossfilter_inference.embed.decode_process import Decoded, DecodeProcess, decode_image
from crossfilter_inference.encoders import registry
from crossfilter_inference.encoders.protocol import Encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.shards.plan import PlannedImage, read_plan
from crossfilter_inference.shards.shard import Embedded, read_shard_provenance

PROJECT = Path(__file__).resolve().parent.parent
CPU_SETTINGS = [("float32", "torch"), ("float32", "openvino"), ("bfloat16", "torch"), ("bfloat16", "openvino")]
GPU_SETTINGS = [("bfloat16", "torch")]
MEGAPIXELS = (12, 1)
MOST_FOR_OTHERS = 60  # photos; the original's loop takes a fifth of a second for each
_Result = TypeVar("_Result")


class Invalid(Exception):
    """The benchmark did not measure what it says."""


class Bench:
    """Times in seconds per photo, by measurement, over the rounds."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        self.folder, self.n_photos, self.device = folder, arguments.photos, arguments.device
        self.checkpoint = make_checkpoint(folder / arguments.model, arguments.model)
        self.shards = {}
        for megapixels in MEGAPIXELS:
            self.shards[megapixels] = folder / f"shard-{megapixels}"
            shutil.rmtree(self.shards[megapixels], ignore_errors=True)
            photos = make_photos(folder / f"photos-{megapixels}", megapixels, self.n_photos)
            plan_shard(self.shards[megapixels], photos, self.n_photos)
        self.provenances, self.encoders = {}, {}
        self.left_out: list[str] = []
        for dtype, runtime in CPU_SETTINGS if self.device == "cpu" else GPU_SETTINGS:
            settings = {"backend": "siglip", "model": self.checkpoint, "revision": "main"}
            try:
                provenance = registry.resolve_encoder("BENCH", {**settings, "dtype": dtype, "runtime": runtime})
                encoder = registry.load_encoder(provenance, self.device, N_CORES)
                encoder.encode_images(self.pixels(encoder))
            except InputError as error:
                self.left_out.append(f"Left out: {dtype} {runtime} ({error}).")
                print(self.left_out[-1], flush=True)
                continue
            self.provenances[dtype, runtime], self.encoders[dtype, runtime] = provenance, encoder
            self.preprocessing = encoder.preprocessing
        self.seconds: dict[tuple, list[float]] = defaultdict(list)
        self.rows: dict[tuple, np.ndarray] = {}

    def pixels(self, encoder: Encoder) -> np.ndarray:
        """Make one batch of ready pixels."""
        shape = (encoder.batch_size, encoder.preprocessing.size, encoder.preprocessing.size, 3)
        return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)

    def measure(self, key: tuple, n_photos: int, work: Callable[[], _Result]) -> _Result:
        """Time a call that handles `n_photos` photos."""
        start = time.perf_counter()
        result = work()
        self.seconds[key].append((time.perf_counter() - start) / n_photos)
        return result

    def median(self, *key: object) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.seconds[key])

    def images(self, megapixels: int) -> list[PlannedImage]:
        """List the photos of a shard."""
        return read_plan(self.shards[megapixels] / "plan.tsv")[0]

    def bare(self, setting: tuple) -> None:
        """Run the bare model on ready pixels: with as many calls at once as the encoder supports."""
        encoder = self.encoders[setting]
        set_threads(1)
        pixels = self.pixels(encoder)
        least = 2 if self.device == "cpu" else 10  # per stream
        n_calls = max(least, self.n_photos // (2 * len(pixels) * encoder.n_streams)) * encoder.n_streams
        with ThreadPoolExecutor(encoder.n_streams) as pool:
            self.measure(
                ("bare", *setting),
                n_calls * len(pixels),
                lambda: list(pool.map(encoder.encode_images, [pixels] * n_calls)),
            )

    def preprocess(self, megapixels: int) -> None:
        """Run the bare preprocessing on all cores, in processes like those of a job."""
        images = self.images(megapixels)
        with ThreadPoolExecutor(N_CORES) as pool, ExitStack() as stack:
            processes = [stack.enter_context(DecodeProcess(self.preprocessing)) for _ in range(N_CORES)]

            def decode_all(images: list[PlannedImage]) -> list[list[object]]:
                shares = [images[number::N_CORES] for number in range(N_CORES)]
                return list(pool.map(lambda process, share: list(map(process.decode, share)), processes, shares))

            decode_all(images[:N_CORES])  # starts the processes
            decoded = self.measure(("preprocess", megapixels), len(images), lambda: decode_all(images))
        if not all(isinstance(photo, Decoded) for share in decoded for photo in share):
            raise Invalid("some photos were not decoded")

    def ours(self, setting: tuple, megapixels: int, key: object = None) -> None:
        """Run our loop like the job of a shard, but without loading the encoder.

        The key of the measurement is that of `megapixels`, unless `key` is given.
        """
        shard = self.shards[megapixels]
        (shard / "encoder.json").write_text(json.dumps(self.provenances[setting]))
        set_threads(1)
        database = new_database(shard)
        key = ("ours", *setting, key or megapixels)
        with patch.object(batches, "load_encoder", return_value=self.encoders[setting]) as stand_in:
            counts = self.measure(key, self.n_photos, lambda: embed_shard(shard, database, self.device))
        if stand_in.call_count != 1:
            raise Invalid(f"the stand-in for load_encoder was called {stand_in.call_count} times, expected once")
        check_computed(counts.n_computed, database, self.n_photos)
        with reading(database) as connection:
            self.rows[*setting, megapixels] = read_embeddings(connection, "BENCH")[1]

    def other(self, name: str, megapixels: int, embed_photos: Callable[[list[str]], object]) -> None:
        """Run another program on half of the photos, on at most 60."""
        set_threads(N_CORES)
        paths = [image.path for image in self.images(megapixels)][: min(max(10, self.n_photos // 2), MOST_FOR_OTHERS)]
        self.measure((name, megapixels), len(paths), lambda: self.rows.update({name: embed_photos(paths)}))


def set_threads(n_threads: int) -> None:
    """Let torch use some cores for each call."""
    import torch

    torch.set_num_threads(n_threads)


def new_database(shard: Path) -> Path:
    """Return the path of the shard database, without the results of an earlier job, which this one would keep."""
    shutil.rmtree(shard / "embeddings")
    (shard / "embeddings").mkdir()
    return shard / "embeddings" / "000001.sqlite"


def check_computed(n_computed: int, database: Path, n_photos: int) -> None:
    """Check that a job has computed every photo: that it neither kept its shard database nor failed at photos."""
    recorded = read_shard_provenance(database, "BENCH")
    outcomes = {name: int(recorded[f"timing_{name}"]) for name in vars(Embedded()) if name.startswith("n_")}
    del outcomes["n_threads"]
    if n_computed != n_photos or outcomes != {**dict.fromkeys(outcomes, 0), "n_computed": n_photos}:
        raise Invalid(f"the job computed {n_computed} photos, expected {n_photos} (outcomes: {outcomes})")


def embed_shard(shard: Path, database: Path, device: str) -> Embedded:
    """Embed a shard into its database."""
    paths = (shard / "shards" / "000001.tsv", shard / "plan.tsv", shard / "encoder.json", database)
    return embed.embed_shard(*map(str, paths), database=None, batch_size=None, n_threads=N_CORES, device=device)


def one_minus_cosine(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compare rows of unit length, one by one."""
    return 1 - (rows.astype(float) * others).sum(axis=1)


def on_cpu(bench: Bench, n_rounds: int) -> list[tuple[str, str, str]]:
    """Measure on a CPU; return rows of figure, value and target."""
    from others import Reference, SentenceTransformers, TransformersPipeline

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
            for setting in list(bench.encoders)[1:]:
                cosines[" ".join(setting)].append(one_minus_cosine(bench.rows[*setting, megapixels], rows))
        print(f"round {number + 1} of {n_rounds}", flush=True)
    table = []
    for megapixels in MEGAPIXELS:
        ours = {setting: bench.median("ours", *setting, megapixels) for setting in bench.encoders}
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
                f"{theirs / ours['float32', 'torch']:.3g}",
                "1.30" if megapixels == 12 else "",
            ),
            (
                f"our loop {' '.join(fastest)} (fastest here) / reference loop, {megapixels} MP",
                f"{theirs / ours[fastest]:.3g}",
                {12: "3.0", 1: "2.4"}[megapixels],
            ),
        ]
        for name in alternatives:
            seconds = bench.median(name, megapixels)
            table.append(
                (
                    f"our loop float32 torch / {name}, {megapixels} MP ({1 / seconds:.2f} images/s)",
                    f"{seconds / ours['float32', 'torch']:.3g}",
                    {12: "1.25", 1: "1.0"}[megapixels],
                )
            )
        ratio = bench.median("reference preprocessing", megapixels) / bench.median("preprocess", megapixels)
        milliseconds = 1e3 * bench.median("preprocess", megapixels)
        name = f"preprocessing, {megapixels} MP, speed-up over the reference ({milliseconds:.1f} ms/photo on all cores)"
        table.append((name, f"{ratio:.3g}", "6" if megapixels == 12 else ""))
    for name, values in cosines.items():
        is_reference = name == "reference"
        rows = "float32 rows against the reference" if is_reference else f"{name} rows against float32 torch"
        table.append(cosine_figure(rows, values, "at most 1e-4, median 1e-5" if is_reference else "at most 1e-4"))
    return table


def cosine_figure(rows: str, values: list[np.ndarray], target: str) -> tuple[str, str, str]:
    """Make the row of the table for differences between embeddings."""
    values = np.maximum(np.concatenate(values), 0)  # equal rows differ by rounding, below zero too
    return f"1 - cosine of {rows}", f"{values.max():.1e}, median {np.median(values):.1e}", target


def on_gpu(bench: Bench, n_rounds: int) -> list[tuple[str, str, str]]:
    """Measure on a GPU: the loop on photos and on ready pixels, against the slower of its two parts."""
    from others import Reference

    [setting] = bench.encoders
    reference = Reference(bench.checkpoint, bench.device)
    first = decode_image(bench.images(MEGAPIXELS[-1])[0], bench.preprocessing)
    n_ready = 0

    def ready(process: DecodeProcess, image: PlannedImage) -> Decoded:
        nonlocal n_ready
        n_ready += 1
        return replace(first, image=image, seconds=0)

    cosines = []
    for number in range(n_rounds):
        bench.bare(setting)
        for megapixels in MEGAPIXELS:
            bench.preprocess(megapixels)
            bench.ours(setting, megapixels)
            database = bench.folder / "reference.sqlite"
            bench.other("reference", megapixels, lambda paths, database=database: reference.embed(paths, database))
            rows = bench.rows[*setting, megapixels]
            cosines.append(one_minus_cosine(rows[: len(bench.rows["reference"])], bench.rows["reference"]))
        with patch.object(DecodeProcess, "decode", ready):
            bench.ours(setting, MEGAPIXELS[-1], "ready")
        if n_ready != bench.n_photos * (number + 1):
            raise Invalid(f"the stand-in for decoding was called {n_ready} times, expected once per photo")
        print(f"round {number + 1} of {n_rounds}", flush=True)
    bare = bench.median("bare", *setting)
    table = []
    for what in (*MEGAPIXELS, "ready"):
        seconds = bench.median("ours", *setting, what)
        decoding = 0 if what == "ready" else bench.median("preprocess", what)
        photos = "ready pixels" if what == "ready" else f"{what} MP, {N_CORES} processes"
        rates = f"({1 / seconds:.0f} of {1 / max(bare, decoding):.0f} images/s)"
        name = f"our loop / limit, {' '.join(setting)}, {photos} {rates}"
        table.append((name, f"{max(bare, decoding) / seconds:.2f}", ".90"))
        if what != "ready":
            theirs = bench.median("reference", what)
            name = f"our loop {' '.join(setting)} / reference loop, {what} MP ({1 / theirs:.3g} images/s)"
            table.append((name, f"{theirs / seconds:.3g}", ""))
    table.append((f"bare model, {' '.join(setting)}, images/s", f"{1 / bare:.0f}", ""))
    table.append(cosine_figure(f"{' '.join(setting)} rows against the reference", cosines, "at most 1e-4"))
    return table


def memory(folder: Path, n_rounds: int, n_small: int, n_large: int) -> tuple[str, str, str]:
    """Compare the peak memory of two jobs with the small encoder, which itself needs little memory."""
    photos = make_photos(folder / "photos-1", 1, n_large)
    provenance = registry.resolve_encoder("BENCH", {"backend": "efficientnet_lite0", "dtype": "float32"})
    peaks: dict[int, list[float]] = defaultdict(list)
    for _ in range(n_rounds):
        for n_photos in (n_small, n_large):
            shard = folder / f"memory-{n_photos}"
            shutil.rmtree(shard, ignore_errors=True)
            plan_shard(shard, photos, n_photos)
            (shard / "encoder.json").write_text(json.dumps(provenance))
            peaks[n_photos].append(run_job(shard, n_photos))
    small, large = (statistics.median(peaks[n_photos]) for n_photos in (n_small, n_large))
    name = f"peak memory for {n_large:,} photos / for {n_small} ({large:.0f} / {small:.0f} MB)"
    return name, f"{large / small:.3f}", "at most 1.05"


def start_up(bench: Bench, n_rounds: int) -> tuple[str, str, str]:
    """Compare the job of one photo with importing the libraries and loading the weights."""
    shard = bench.folder / "startup"
    shutil.rmtree(shard, ignore_errors=True)
    plan_shard(shard, bench.folder / "photos-1", 1)
    (shard / "encoder.json").write_text(json.dumps(bench.provenances["float32", "torch"]))
    imports = (
        "import torch, transformers; transformers.SiglipVisionModel.from_pretrained"
        f"({bench.checkpoint!r}, dtype=torch.float32)"
    )
    for _ in range(n_rounds):
        bench.measure(("startup",), 1, lambda: run_job(shard, 1, "--batch_size", "1"))
        bench.measure(("imports",), 1, lambda: run([sys.executable, "-c", imports]))
    ours, theirs = bench.median("startup"), bench.median("imports")
    name = f"job of one photo, start to end / import torch, transformers, load weights ({ours:.1f} / {theirs:.1f} s)"
    return name, f"{ours / theirs:.2f}", "at most 1.3"


def matrix(folder: Path, n_rounds: int, n_rows: int, n_dims: int = 768) -> tuple[str, str, str]:
    """Compare reading all rows of a database with reading the same floats from a file."""
    database, file = folder / "rows.sqlite", folder / "rows.npy"
    embeddings = np.random.default_rng(0).normal(size=(n_rows, n_dims)).astype(np.float32)
    np.save(file, embeddings)
    database.unlink(missing_ok=True)
    table = Tables("BENCH").embeddings
    with writing(database) as connection:
        table.create(connection)
        n_shards = -(-n_rows // 1000)
        for start in range(n_shards):  # as the store leaves them: shard by shard, in the order of UUIDs in each
            numbers = range(start, n_rows, n_shards)
            rows = [{"UUID": f"{n:036d}", "EMBEDDING": pack_embedding(embeddings[n])} for n in numbers]
            connection.execute(table.insert(), rows)
    program = (
        "import sys, time, numpy; from crossfilter_inference.db.connect import reading\n"
        "from crossfilter_inference.db.embeddings import read_embeddings\n"
        "for number in range(1 + int(sys.argv[3])):\n"
        "    start = time.perf_counter()\n"
        "    with reading(sys.argv[1]) as connection: read_embeddings(connection, 'BENCH')\n"
        "    middle = time.perf_counter(); numpy.load(sys.argv[2]); end = time.perf_counter()\n"
        "    if number: print(middle - start, end - middle)"  # the first time, packages are imported
    )
    # In a process of its own, so that neither reuses allocated memory.
    command = [sys.executable, "-c", program, str(database), str(file), str(n_rounds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours, theirs = np.median([[float(number) for number in line.split()] for line in output.splitlines()], axis=0)
    name = f"reading {n_rows:,} rows into a matrix / reading an .npy file ({ours:.2f} / {theirs:.2f} s)"
    return name, f"{ours / theirs:.3g}", "at most 5"


def run_job(shard: Path, n_photos: int, *options: str) -> float:
    """Run a shard's job as Snakemake would, on the CPU; return its peak memory in MB."""
    database = new_database(shard)
    if database.exists():
        raise Invalid(f"{database} exists, so the job would keep it")
    peak = run(
        [
            *(sys.executable, str(PROJECT / "scripts" / "embed_shard.py"), "--plan", str(shard / "plan.tsv")),
            *("--shard", str(shard / "shards" / "000001.tsv"), "--encoder", str(shard / "encoder.json")),
            *("--output", str(database), "--threads", str(N_CORES), "--device", "cpu", *options),
        ]
    )
    check_computed(n_photos, database, n_photos)
    return peak


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
    packages = ("torch", "transformers", "openvino", "pillow", "simplejpeg", "sentence-transformers")
    parts = [f"{N_CORES} cores of {models[0] if models else platform.processor()} ({', '.join(flags)})"]
    if device == "cuda":
        import torch

        parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}")
    for package in packages:
        with suppress(PackageNotFoundError):
            parts.append(f"{package} {version(package)}")
    return "; ".join(parts)


def main() -> None:
    """Measure, print and write."""
    import torch

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="times that everything is measured (%(default)s)")
    options.add_argument("--photos", type=int, default=80, help="photos for our loop, in each round (%(default)s)")
    options.add_argument("--rows", type=int, default=100_000, help="rows to read into a matrix (%(default)s)")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    options.add_argument("--model", default="base-patch16-224", choices=SIZES)
    options.add_argument("--folder", type=Path, help="where photos and checkpoint are made and kept")
    options.add_argument("--output", type=Path, help="default: RESULTS.md or GPU.md next to this file")
    arguments = options.parse_args()
    folder = arguments.folder or Path(tempfile.gettempdir()) / "crossfilter-benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, arguments)
    if arguments.device == "cuda":
        table = on_gpu(bench, arguments.rounds)
    else:
        table = on_cpu(bench, arguments.rounds)
        table.append(start_up(bench, arguments.rounds))
        table.append(matrix(folder, arguments.rounds, arguments.rows))
        n_small, n_large = (round(factor * arguments.photos) for factor in (2.5, 25))
        table.append(memory(folder, arguments.rounds, n_small, n_large))
    lines = [
        "# Embedding speed",
        "",
        "Written by `benchmarks/embedding.py`, a part of `make bench`. *Limit* is the bare model on decoded images; "
        "*reference loop* is the original tool's loop with the model loaded once. MP is megapixels.",
        "",
        f"{machine(arguments.device)}. SigLIP {arguments.model} with random weights, photos of 12 and 1 megapixels. "
        f"Medians of {arguments.rounds} rounds with {arguments.photos} photos of each size.",
        "",
        *(line for left_out in bench.left_out for line in (left_out, "")),
        "| figure | measured | target |",
        "|---|---|---|",
        *(f"| {name} | {value} | {wanted} |" for name, value, wanted in table),
    ]
    name = {"cpu": "RESULTS.md", "cuda": "GPU.md"}[arguments.device]
    (arguments.output or Path(__file__).with_name(name)).write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
