r"""Merge the shard databases into the database, in one transaction.

Example:
    python scripts/store_embeddings.py --encoder encoder.json --manifest manifest.tsv --database photos.sqlite \
        --shards shards --embeddings embeddings --receipt embeddings.json
"""

import argparse

import _command
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.util.files import write_stamp


def main(arguments: argparse.Namespace) -> str:
    stored = store_embeddings(
        arguments.encoder,
        arguments.manifest,
        arguments.database,
        arguments.shards,
        arguments.embeddings,
        arguments.receipt,
        generation=arguments.generation,
        delete_missing=arguments.missing_images == "delete",
    )
    if arguments.stamp:
        write_stamp(arguments.stamp)
    return (
        f"{arguments.database}: rows merged: {stored.n_merged}, deleted: {stored.n_deleted}; it holds "
        f"{stored.n_embeddings} embeddings; failures: {stored.n_failures}"
        + (f"; shards retired: {stored.n_retired}" if stored.n_retired else "")
    )


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--encoder", required=True, help="encoder.json")
    options.add_argument("--manifest", required=True, help="manifest.tsv")
    options.add_argument("--database", required=True, help="database to bring up to date")
    options.add_argument("--shards", required=True, help="folder of the shard lists")
    options.add_argument("--embeddings", required=True, help="folder of the shard databases")
    options.add_argument("--receipt", required=True, help="embeddings.json to write")
    options.add_argument("--missing_images", choices=["keep", "delete"], default="keep")
    options.add_argument("--generation", type=int, default=1, help="number that the receipt gets")
    options.add_argument("--stamp", help="empty file that names the settings")
    _command.add_log(options)
    _command.run(main, options)
