r"""Embed the images of one shard into a shard database.

Example:
    python scripts/embed_shard.py --shard shards/000001.tsv --plan plan.tsv --encoder encoder.json \
        --output embeddings/000001.sqlite --batch_size 10 --threads 4
"""

import argparse
import os

import _command
from crossfilter_inference.embed.job import embed_shard
from crossfilter_inference.encoders.devices import one_gpu
from crossfilter_inference.util.text import counted


def main(arguments: argparse.Namespace) -> str:
    scratch = os.getenv("TMPDIR", "")
    with one_gpu(arguments.gpus):
        counts = embed_shard(
            arguments.shard,
            arguments.plan,
            arguments.encoder,
            arguments.output,
            database=None if arguments.recompute == "yes" else arguments.database,
            batch_size=None if arguments.batch_size == "auto" else int(arguments.batch_size),
            n_threads=arguments.threads,
            device=arguments.device,
            max_pixels=int(arguments.max_megapixels * 1e6),
            scratch=scratch if arguments.scratch == "yes" and os.path.isdir(scratch) else None,
        )
    if counts.n_kept:
        return f"kept: all {counts.n_kept} photos are in {arguments.output} already"
    adopted = f", adopted {counts.n_adopted}" if counts.n_adopted else ""
    resumed = f", gone on from {counts.n_resumed} of a broken-off job" if counts.n_resumed else ""
    return (
        f"embedded {counted(counts.n_computed, 'photos')}, copied {counts.n_copied}{adopted}{resumed}, "
        f"failed {counts.n_failed}: "
        f"{counts.images_per_second:.1f} images/s; of {counts.total:.1f} s, {counts.loading:.1f} s "
        f"loading the encoder ({counts.device}), {counts.encoding:.1f} s in it, {counts.waiting:.1f} s waiting for "
        f"images; beside it {counts.decoding:.1f} s decoding ({arguments.threads} at once) and {counts.writing:.1f} s "
        "writing"
    )


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--shard", required=True, help="shard list")
    options.add_argument("--plan", required=True, help="plan.tsv, which knows where the images are now")
    options.add_argument("--encoder", required=True, help="encoder.json")
    options.add_argument("--output", required=True, help="shard database to write")
    options.add_argument("--database", help="database whose rows of the same content are copied, others adopted")
    options.add_argument("--recompute", choices=["yes", "no"], default="no", help="yes: copy nothing (%(default)s)")
    options.add_argument("--batch_size", default="auto", help="photos per call of the encoder (%(default)s)")
    options.add_argument("--threads", type=int, default=1, help="cores to use (%(default)s)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (%(default)s)")
    options.add_argument("--gpus", type=int, default=0, help="take a free one of so many; 0: any or none (%(default)s)")
    options.add_argument(
        "--scratch", choices=["yes", "no"], default="no", help="yes: build it in $TMPDIR (%(default)s)"
    )
    options.add_argument("--max_megapixels", type=float, default=268, help="larger photos fail (%(default)s)")
    _command.add_log(options)
    _command.run(main, options)
