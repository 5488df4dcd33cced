"""What a run will take, and what its jobs need: from what earlier runs measured, else from figures of other machines.

Every embedding job leaves its times in its shard database (`timing_*`), every job its seconds and memory in the
benchmarks of Snakemake. Jobs on a GPU and on a CPU are told apart.
"""

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..encoders import devices
from ..errors import InputError
from ..shards.shard import read_shard_provenance
from ..util.files import read_json
from ..util.text import counted, duration

CLUSTER_CORES = 8  # of a job on a cluster, unless a profile says otherwise (set-threads)
_START_SHARE = 0.05  # of a shard's time that may go into starting its job
_FEWEST, _MOST = 200, 100_000  # photos of a shard
_FEWEST_TO_MEASURE = 20  # photos that an earlier job must have computed to tell how fast it was
_N_LOOKED_AT = 10  # of the newest shards
_MEMORY_RESERVE, _TIME_RESERVE = 1.5, 3
_LEAST_MINUTES = 10  # that a job may run: nodes and file systems have bad days


@dataclass(frozen=True)
class Cost:
    """What an embedding job costs.

    Attributes
    ----------
    start : float
        Seconds from the start of the job to its first photo.
    per_photo : float
        Seconds for each photo, with all cores of the job.
    memory : float
        MB at most.
    is_measured : bool
        Whether an earlier run on this kind of device has left these figures.
    """

    start: float
    per_photo: float
    memory: float
    is_measured: bool = False

    @property
    def shard_size(self) -> int:
        """Photos of a shard that keep the start of its job below 5 % of its time."""
        n_photos = (1 / _START_SHARE - 1) * self.start / self.per_photo
        return min(max(math.ceil(n_photos / 100) * 100, _FEWEST), _MOST)

    def seconds(self, n_photos: int, n_shards: int, n_jobs: int) -> float:
        """Expect so many seconds for photos in shards, of which `n_jobs` are embedded at once."""
        n_jobs = min(n_jobs, n_shards)
        return math.ceil(n_shards / n_jobs) * self.start + n_photos / n_jobs * self.per_photo if n_jobs else 0

    def memory_mb(self, n_photos: int, attempt: int) -> int:
        """Memory that a job may take: its share of reserve, and more at every attempt."""
        return math.ceil((_MEMORY_RESERVE * self.memory + n_photos * 2e-3) * attempt)

    def runtime(self, n_photos: int, attempt: int) -> int:
        """Minutes that a job may take."""
        return math.ceil(_LEAST_MINUTES + _TIME_RESERVE * self.seconds(n_photos, 1, 1) / 60) * attempt


# Start, core seconds per photo, MB: of SigLIP's base model in float32 and of the small network on 2 cores of 2023
# (benchmarks/RESULTS.md). The time of a GPU is that of decoding photos of 12 megapixels on the cores beside it.
_ON_CPU = {"siglip": (8.0, 0.46, 1500), "efficientnet_lite0": (4.5, 0.035, 1000)}
_OTHER_BACKEND = (4.5, 0.035, 1500)
_ON_GPU = (20.0, 0.05, 6000)

# Seconds of every other rule: at least, and for each photo of the collection (benchmarks/SCALE.md, SPHERE.md).
_STAGES = {
    "resolve_encoder": (2.0, 0.0),
    "write_manifest": (0.5, 1e-5),
    "store_embeddings": (1.0, 2e-5),
    "fit_umap": (4.0, 4.5e-4),
    "store_map": (1.0, 1e-5),
    "embed_words": (30.0, 0.0),
    "draw_map": (2.5, 0.0),
}
_COMPILED_MODULES = Path(__file__).parent.parent / "map"
_COMPILING = 35.0  # seconds that the first map on a machine takes longer
TEXT_MEMORY_MB = 4000  # of the text tower of a larger SigLIP2
_OF_MAP = ("fit_umap", "store_map", "embed_words", "draw_map")
_SNAKEMAKE = (2.0, 0.7)  # seconds of its start, and between two jobs
_CLUSTER_OVERHEAD = 20.0  # seconds of a job in an idle Slurm: three starts of Snakemake, and the time until it is seen


@dataclass(frozen=True)
class Shares:
    """How a run shares out what it may use.

    Attributes
    ----------
    cores : int
        Of the job that makes the map.
    embed_cores : int
        Of an embedding job.
    n_gpus : int
        In use at once, each by one embedding job; 0, if none is asked for.
    n_jobs : int
        Embedding jobs at once.
    on_gpu : bool
        Whether they run on GPUs, as far as can be told.
    overhead : float
        Seconds that every job takes besides: on a cluster it is sent to a node and asked after from time to time.
    """

    cores: int
    embed_cores: int
    n_gpus: int
    n_jobs: int
    on_gpu: bool
    overhead: float = 0


def share_out(cores: int | None, nodes: int | None, n_gpus: int | None, *, may_use_gpu: bool) -> Shares:
    """Share out the cores of this machine, or the jobs of a cluster, and the GPUs.

    Parameters
    ----------
    cores : int or None
        None on a cluster, whose nodes may have any number.
    nodes : int or None
        Jobs that a cluster may run at once.
    n_gpus : int or None
        GPUs that may be in use at once; None, if nothing is said of them.
    may_use_gpu : bool
        Whether the encoder would run on one.
    """
    n_gpus = n_gpus or 0 if may_use_gpu else 0
    if cores is None:
        nodes = nodes or 1
        return Shares(CLUSTER_CORES, CLUSTER_CORES, n_gpus, min(nodes, n_gpus or nodes), n_gpus > 0, _CLUSTER_OVERHEAD)
    n_jobs = min(n_gpus or 1, cores)
    return Shares(cores, cores // n_jobs, n_gpus, n_jobs, n_gpus > 0 or (may_use_gpu and devices.may_have_gpu()))


def embedding_cost(folder: str | Path, backend: str, shares: Shares) -> Cost:
    """Say what an embedding job costs.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    backend : str
        Of the encoder.
    shares : Shares
    """
    on_gpu, n_threads = shares.on_gpu, shares.embed_cores
    for path in sorted(Path(folder, "embeddings").glob("[0-9]*.sqlite"), reverse=True)[:_N_LOOKED_AT]:
        measured = _measured(Path(folder), path, on_gpu=on_gpu, n_threads=n_threads)
        if measured is not None:
            return measured
    start, per_photo, memory = _ON_GPU if on_gpu else _ON_CPU.get(backend, _OTHER_BACKEND)
    return Cost(start, per_photo / n_threads, memory)


def seconds_beside_embedding(folder: str | Path, n_photos: int, *, with_map: bool, with_words: bool) -> float:
    """Expect so many seconds for everything but the embedding jobs of a run.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    n_photos : int
        In the whole collection.
    with_map : bool
        Whether the map is made.
    with_words : bool
        Whether regions are named by words that the encoder understands.
    """
    receipt, compiled_at = Path(folder, "embeddings.json"), _compiled_at()
    n_before = read_json(receipt)["n_embeddings"] if receipt.exists() else 0
    done = {"resolve_encoder": Path(folder, "encoder.json").exists()}
    done |= dict.fromkeys(_OF_MAP, not with_map)
    done["embed_words"] |= not with_words or Path(folder, "words.npz").exists()
    seconds, between_jobs = _SNAKEMAKE
    if with_map and compiled_at is None:
        seconds += _COMPILING
    for rule in _STAGES.keys() - {rule for rule, is_done in done.items() if is_done}:
        least, per_photo = _STAGES[rule]
        expected = least + per_photo * n_photos
        path = Path(folder, "benchmarks", rule, f"{rule}.tsv")
        benchmark = _benchmark(path)
        if benchmark is not None and not 0 <= path.stat().st_mtime - (compiled_at or 0) <= benchmark["s"]:
            expected *= benchmark["s"] / (least + per_photo * n_before)
        seconds += expected + between_jobs
    return seconds


def _compiled_at() -> float | None:
    """Say when our code was compiled, in seconds since the epoch; None, if it will be by the first map.

    If numba keeps what it compiles elsewhere (in `NUMBA_CACHE_DIR`, or as our folder cannot be written), this is not
    known, and 0.
    """
    folder = _COMPILED_MODULES / "__pycache__"
    if "NUMBA_CACHE_DIR" in os.environ or not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return 0
    return max((path.stat().st_mtime for path in folder.glob("*.nbi")), default=None)


def forecast(
    folder: str | Path,
    cost: Cost,
    shares: Shares,
    shard_sizes: dict[str, int],
    shards: list[str],
    *,
    with_map: bool,
    with_words: bool,
) -> str:
    """Say in a line how much is to be embedded, and how long the run will take; empty, if nothing is.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    cost : Cost
    shares : Shares
    shard_sizes : dict
        Photos that each shard owns.
    shards : list of str
        Those at work in this run.
    with_map, with_words : bool
        As for `seconds_beside_embedding`.
    """
    to_do = [shard for shard in shards if not Path(folder, "embeddings", f"{shard}.sqlite").exists()]
    if not to_do:
        return ""
    n_photos = sum(shard_sizes.get(shard, 0) for shard in to_do)
    seconds = cost.seconds(n_photos, len(to_do), shares.n_jobs)
    seconds += seconds_beside_embedding(folder, sum(shard_sizes.values()), with_map=with_map, with_words=with_words)
    n_in_a_row = math.ceil(len(to_do) / shares.n_jobs) + (2 if with_map else 0)  # the map is made, then drawn
    seconds += n_in_a_row * shares.overhead
    source = "as fast as in earlier runs" if cost.is_measured else "roughly: nothing was measured here yet"
    return (
        f"forecast: {counted(n_photos, 'photos')} to embed (shards: {len(to_do)}), about {duration(seconds)} ({source})"
    )


def map_memory_mb(n_photos: int, attempt: int) -> int:
    """Memory that making the map may take, in MB (benchmarks/SPHERE.md)."""
    return math.ceil(_MEMORY_RESERVE * (500 + 0.012 * n_photos)) * attempt


def map_runtime(n_photos: int, attempt: int) -> int:
    """Minutes that making the map may take, on one core."""
    least, per_photo = _STAGES["fit_umap"]
    return math.ceil(_LEAST_MINUTES + _TIME_RESERVE * 2 * (least + per_photo * n_photos) / 60) * attempt


def _measured(folder: Path, path: Path, *, on_gpu: bool, n_threads: int) -> Cost | None:
    """Read what the job of one shard database has left."""
    try:
        timing = read_shard_provenance(path, folder.name)
    except InputError:
        return None
    benchmark = _benchmark(folder / "benchmarks" / "embed_shard" / f"{path.stem}.tsv")
    n_computed, device = int(timing.get("timing_n_computed", 0)), timing.get("timing_device", "none")
    of_this_kind = device != "none" and (device == "cpu") != on_gpu
    if benchmark is None or not of_this_kind or n_computed < _FEWEST_TO_MEASURE or "timing_n_threads" not in timing:
        return None
    total, loading = float(timing["timing_total"]), float(timing["timing_loading"])
    if benchmark["s"] < total:  # of a later job, which kept what this one had made
        return None
    at_work = total - loading
    scale = 1 if on_gpu else int(timing["timing_n_threads"]) / n_threads
    return Cost(
        benchmark["s"] - at_work, at_work / n_computed * scale, max(benchmark["max_rss"], 500), is_measured=True
    )


def _benchmark(path: Path) -> dict[str, float] | None:
    """Read the seconds and MB that Snakemake measured of a job."""
    try:
        [row] = csv.DictReader(path.read_text().splitlines(), delimiter="\t")
        return {"s": float(row["s"]), "max_rss": 0 if row["max_rss"] == "NA" else float(row["max_rss"])}
    except (OSError, ValueError, KeyError):
        return None
