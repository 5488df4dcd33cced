"""The job of rule embed_shard."""

import os

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.embed.job import embed_shard
from crossfilter_inference.encoders.devices import one_gpu
from crossfilter_inference.util.text import counted


def main(
    *,
    shard: str,
    plan: str,
    encoder: str,
    output: str,
    database: str | None = None,
    recompute: bool = False,
    batch_size: str = "auto",
    threads: int = 1,
    device: str = "auto",
    gpus: int = 0,
    scratch: bool = False,
    max_megapixels: float = 268,
    backend: str = "",
) -> str:
    r"""Embed the photos of one shard into a shard database.

    Parameters
    ----------
    shard : str
        List of the photos of the shard.
    plan : str
        plan.tsv, which holds the current paths of the photos.
    encoder : str
        encoder.json.
    output : str
        Shard database to write.
    database : str, optional
        Database from which to copy or adopt the rows of these photos.
    recompute : bool
        Recompute every embedding; copy and adopt nothing.
    batch_size : str
        Photos per call of the encoder, or auto.
    threads : int
        CPU cores to use.
    device : str
        auto, cpu, cuda or mps.
    gpus : int
        Number of GPUs in this machine to choose a free one from; 0: use any GPU, or none.
    scratch : bool
        Build the shard database in $TMPDIR, then move it.
    max_megapixels : float
        Photos above this size fail.
    backend : str
        The backend in the configuration. Without it, encoder.json cannot name a Python file.

    Examples
    --------
        python scripts/embed_shard.py --shard shards/000001.tsv --plan plan.tsv --encoder encoder.json \
            --output embeddings/000001.sqlite --batch_size 10 --threads 4
    """
    folder = os.getenv("TMPDIR", "")
    with one_gpu(gpus):
        counts = embed_shard(
            shard,
            plan,
            encoder,
            output,
            database=None if recompute else database,
            batch_size=None if batch_size == "auto" else int(batch_size),
            n_threads=threads,
            device=device,
            max_pixels=int(max_megapixels * 1e6),
            backends=[backend] if backend else [],
            scratch=folder if scratch and os.path.isdir(folder) else None,
        )
    if counts.n_kept:
        return f"kept: all {counts.n_kept} photos are in {output} already"
    adopted = f", adopted {counts.n_adopted}" if counts.n_adopted else ""
    resumed = f", resumed {counts.n_resumed} of an interrupted job" if counts.n_resumed else ""
    return (
        f"embedded {counted(counts.n_computed, 'photos')}, copied {counts.n_copied}{adopted}{resumed}, "
        f"failed {counts.n_failed}: {counts.images_per_second:.1f} images/s; of {counts.total:.1f} s, "
        f"{counts.loading:.1f} s loading the encoder ({counts.device}), {counts.encoding:.1f} s in it, "
        f"{counts.waiting:.1f} s waiting for images; in parallel {counts.decoding:.1f} s decoding ({threads} at once) "
        f"and {counts.writing:.1f} s writing"
    )


if __name__ == "__main__":
    run_job(main)
