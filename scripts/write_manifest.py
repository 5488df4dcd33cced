r"""Promote the plan of this run: new shard lists, rejected files, manifest.

Example:
    python scripts/write_manifest.py --plan plan.tsv --manifest manifest.tsv --rejected rejected.tsv \
        --shards shards
"""

import argparse

import _command
from crossfilter_inference.shards.plan import write_manifest
from crossfilter_inference.util.files import write_stamp


def main(arguments: argparse.Namespace) -> str:
    plan = write_manifest(arguments.plan, arguments.manifest, arguments.rejected, arguments.shards)
    if arguments.stamp:
        write_stamp(arguments.stamp)
    return f"{plan.summary()}; rejected files: {len(plan.rejected)}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--plan", required=True, help="plan.tsv, as the run at hand found things")
    options.add_argument("--manifest", required=True, help="manifest.tsv to write")
    options.add_argument("--rejected", required=True, help="rejected.tsv to write")
    options.add_argument("--shards", required=True, help="folder of the shard lists; new ones are written")
    options.add_argument("--stamp", help="empty file that names the plan")
    _command.add_log(options)
    _command.run(main, options)
