"""Estimate how long a run takes and what its jobs need.

Estimates come from earlier runs on the same kind of device (CPU or GPU), or else from figures of another machine. Every
embedding job records its times in its shard database (`timing_*`). Snakemake records time and memory of every job in
its benchmarks.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from ..encoders import devices
from ..encoders.identity import cpu_cost
from ..errors import InputError
from ..shards.plan import shard_databases
from ..shards.shard import read_shard_provenance
from ..util.files import read_benchmark, read_json
from ..util.text import counted, duration
from .progress import RunProgress

CLUSTER_CORES = 8  # cores of a job on a cluster, unless a profile sets others (set-threads)
_START_SHARE = 0.05  # fraction of a shard's time for the start of its job
_FEWEST, _MOST = 200, 100_000  # photos in a shard
_FEWEST_TO_MEASURE = 20  # computed photos from which the speed of a job is measured
_N_LOOKED_AT = 10  # newest shards to read measurements from
_MEMORY_RESERVE, _TIME_RESERVE = 1.5, 3
_LEAST_MINUTES = 10  # time limit of a short job: nodes and file systems can be slow


@dataclass(frozen=True)
class Cost:
    """Cost of an embedding job.

    Attributes
    ----------
    start : float
        Seconds from the start of the job to its first photo.
    per_photo : float
        Seconds for each photo, with all cores of the job.
    memory : float
        Peak, in MB.
    is_measured : bool
        Whether the figures come from an earlier run on this kind of device.
    """

    start: float
    per_photo: float
    memory: float
    is_measured: bool = False

    @property
    def shard_size(self) -> int:
        """Photos per shard that keep the start of a job below 5% of its time."""
        n_photos = (1 / _START_SHARE - 1) * self.start / self.per_photo
        return min(max(math.ceil(n_photos / 100) * 100, _FEWEST), _MOST)

    def seconds(self, n_photos: int, n_shards: int, n_jobs: int) -> float:
        """Estimate the seconds to embed photos in shards, `n_jobs` shards at once."""
        n_jobs = min(n_jobs, n_shards)
        return math.ceil(n_shards / n_jobs) * self.start + n_photos / n_jobs * self.per_photo if n_jobs else 0

    def memory_mb(self, n_photos: int, attempt: int) -> int:
        """Return the memory limit of a job in MB. It has a reserve, and grows with every attempt."""
        return math.ceil((_MEMORY_RESERVE * self.memory + n_photos * 2e-3) * attempt)

    def runtime(self, n_photos: int, attempt: int) -> int:
        """Return the time limit of a job in minutes. It grows with every attempt."""
        return math.ceil(_LEAST_MINUTES + _TIME_RESERVE * self.seconds(n_photos, 1, 1) / 60) * attempt


# Seconds to start, core seconds per photo, MB: decoding photos of 12 megapixels on the CPU is the limit.
_ON_GPU = (20.0, 0.05, 6000)

# Seconds of every other rule: fixed, and per photo of the collection (benchmarks/SCALE.md, SPHERE.md).
_STAGES = {
    "resolve_encoder": (2.0, 0.0),
    "write_manifest": (0.5, 1e-5),
    "store_embeddings": (1.0, 2e-5),
    "fit_umap": (4.0, 4.5e-4),
    "store_map": (1.0, 1e-5),
    "draw_map": (2.5, 0.0),
}
_COMPILED_MODULES = Path(__file__).parent.parent / "map"
_COMPILING = 35.0  # extra seconds of the first map on a machine
TEXT_MEMORY_MB = 4000  # for the text tower of a large SigLIP2
_OF_MAP = ("fit_umap", "store_map", "embed_words", "draw_map")
_SNAKEMAKE = (2.0, 0.7)  # seconds to start Snakemake, and between two jobs
_CLUSTER_OVERHEAD = 20.0  # seconds per job in an idle Slurm: three starts of Snakemake, and polling


@dataclass(frozen=True)
class Shares:
    """How a run divides the cores and GPUs between its jobs.

    Attributes
    ----------
    cores : int
        Cores of the job that makes the map.
    embed_cores : int
        Cores of an embedding job.
    n_gpus : int
        GPUs in use at once, each by one embedding job; 0 if none is requested.
    n_jobs : int
        Embedding jobs at once.
    on_gpu : bool
        Whether embedding jobs run on GPUs, as far as is known.
    overhead : float
        Extra seconds of every job; a cluster submits a job and polls for its end.
    """

    cores: int
    embed_cores: int
    n_gpus: int
    n_jobs: int
    on_gpu: bool
    overhead: float = 0


def share_out(cores: int | None, nodes: int | None, n_gpus: int | None, *, may_use_gpu: bool) -> Shares:
    """Divide the cores of this machine, or the jobs of a cluster, and the GPUs.

    Parameters
    ----------
    cores : int or None
        Cores of this machine; None on a cluster.
    nodes : int or None
        Jobs that a cluster may run at once.
    n_gpus : int or None
        GPUs that may be in use at once; None if unknown.
    may_use_gpu : bool
        Whether the encoder can run on a GPU.
    """
    n_gpus = n_gpus or 0 if may_use_gpu else 0
    if cores is None:
        nodes = nodes or 1
        return Shares(CLUSTER_CORES, CLUSTER_CORES, n_gpus, min(nodes, n_gpus or nodes), n_gpus > 0, _CLUSTER_OVERHEAD)
    n_jobs = min(n_gpus or 1, cores)
    return Shares(cores, cores // n_jobs, n_gpus, n_jobs, n_gpus > 0 or (may_use_gpu and devices.may_have_gpu()))


def embedding_cost(folder: str | Path, backend: str, shares: Shares) -> Cost:
    """Estimate the cost of an embedding job.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    backend : str
        Backend of the encoder.
    shares : Shares
    """
    on_gpu, n_threads = shares.on_gpu, shares.embed_cores
    for path in shard_databases(folder)[: -_N_LOOKED_AT - 1 : -1]:
        measured = _measured(Path(folder), path, on_gpu=on_gpu, n_threads=n_threads)
        if measured is not None:
            return measured
    start, per_photo, memory = _ON_GPU if on_gpu else cpu_cost(backend)
    return Cost(start, per_photo / n_threads, memory)


def seconds_beside_embedding(folder: str | Path, n_photos: int, *, with_map: bool, words: float) -> float:
    """Estimate the seconds of a run without its embedding jobs.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    n_photos : int
        Photos in the whole collection.
    with_map : bool
        Whether the run makes the map.
    words : float
        Seconds to embed words; 0 if the map needs none.
    """
    receipt, compiled_at = Path(folder, "embeddings.json"), _compiled_at()
    n_before = read_json(receipt, n_embeddings=int)["n_embeddings"] if receipt.exists() else 0
    done = {"resolve_encoder": Path(folder, "encoder.json").exists()}
    done |= dict.fromkeys(_OF_MAP, not with_map)
    done["embed_words"] |= not words or Path(folder, "words.npz").exists()
    seconds, between_jobs = _SNAKEMAKE
    if with_map and compiled_at is None:
        seconds += _COMPILING
    stages = {**_STAGES, "embed_words": (words, 0.0)}
    for rule in stages.keys() - {rule for rule, is_done in done.items() if is_done}:
        least, per_photo = stages[rule]
        expected = least + per_photo * n_photos
        path = Path(folder, "benchmarks", rule, f"{rule}.tsv")
        benchmark = read_benchmark(path)
        if benchmark is not None and not 0 <= path.stat().st_mtime - (compiled_at or 0) <= benchmark["s"]:
            expected *= benchmark["s"] / (least + per_photo * n_before)
        seconds += expected + between_jobs
    return seconds


def _compiled_at() -> float | None:
    """Return when numba compiled the code of the map, in seconds since the epoch; None if it has not done so yet.

    If numba's cache is elsewhere (`NUMBA_CACHE_DIR` is set, or the folder is read-only), the time is unknown, and 0.
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
    words: float,
    n_reread: int = 0,
) -> str:
    """Return a line with the number of photos to embed and the time of the run; empty if nothing remains to be done.

    Parameters
    ----------
    folder : str or Path
        State folder of the embedding type.
    cost : Cost
    shares : Shares
    shard_sizes : dict
        Number of photos that each shard owns.
    shards : list of str
        Shards of this run.
    with_map : bool
    words : float
        As for `seconds_beside_embedding`.
    n_reread : int
        Photos of these shards that are probably only read again.
    """
    to_do = [shard for shard in shards if not Path(folder, "embeddings", f"{shard}.sqlite").exists()]
    if not to_do:
        return ""
    progress = RunProgress(str(folder), {shard: shard_sizes.get(shard, 0) for shard in to_do})
    n_finished = min(progress.n_done(), progress.n_total - n_reread)  # by a run that was interrupted
    n_photos = progress.n_total - n_reread - n_finished
    seconds = cost.seconds(n_photos, len(to_do), shares.n_jobs)
    seconds += n_reread * _ON_GPU[1] / (shares.n_jobs * shares.embed_cores)
    seconds += seconds_beside_embedding(folder, sum(shard_sizes.values()), with_map=with_map, words=words)
    n_sequential = math.ceil(len(to_do) / shares.n_jobs) + (2 if with_map else 0)  # fit_umap, draw_map
    seconds += n_sequential * shares.overhead
    source = "measured in earlier runs" if cost.is_measured else "a rough guess: no measurements yet"
    may_copy = " or to copy" if Path(folder, "embeddings.json").exists() else ""
    what = f"{counted(n_photos, 'photos')} to embed{may_copy}{f', {n_reread:,} to read again' if n_reread else ''}"
    what += f", {n_finished:,} finished before" if n_finished else ""
    return f"forecast: {what} (shards: {len(to_do)}), about {duration(seconds)} ({source})"


def map_memory_mb(n_photos: int, attempt: int) -> int:
    """Return the memory limit of fit_umap in MB (benchmarks/SPHERE.md)."""
    return math.ceil(_MEMORY_RESERVE * (500 + 0.012 * n_photos)) * attempt


def map_runtime(n_photos: int, attempt: int) -> int:
    """Return the time limit of fit_umap on one core, in minutes."""
    least, per_photo = _STAGES["fit_umap"]
    return math.ceil(_LEAST_MINUTES + _TIME_RESERVE * 2 * (least + per_photo * n_photos) / 60) * attempt


def _measured(folder: Path, path: Path, *, on_gpu: bool, n_threads: int) -> Cost | None:
    """Read the cost of the job that made one shard database; None if it measured nothing useful."""
    benchmark = read_benchmark(folder / "benchmarks" / "embed_shard" / f"{path.stem}.tsv")
    try:
        timing = read_shard_provenance(path, folder.name)
        n_computed, total, loading, n_cores = (
            float(timing[f"timing_{name}"]) for name in ("n_computed", "total", "loading", "n_threads")
        )
    except (InputError, KeyError, ValueError):
        return None
    device = timing.get("timing_device", "none")
    of_this_kind = device != "none" and (device == "cpu") != on_gpu
    if benchmark is None or not of_this_kind or not n_computed >= _FEWEST_TO_MEASURE:
        return None
    embedding = total - loading
    # Otherwise it belongs to a later job, which kept the shard; or somebody changed the figures.
    if not 0 < embedding <= total <= benchmark["s"]:
        return None
    scale = 1 if on_gpu else n_cores / n_threads
    return Cost(
        benchmark["s"] - embedding, embedding / n_computed * scale, max(benchmark["max_rss"], 500), is_measured=True
    )
