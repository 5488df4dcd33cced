r"""Export embeddings and map: Parquet, NumPy, and a table that Apple's embedding-atlas opens.

It reads the configuration as Snakemake does.

Example:
    python scripts/export.py --parquet photos.parquet --npy photos.npy --atlas atlas.parquet
"""

import argparse

import _command
from crossfilter_inference.collection import Collection
from crossfilter_inference.errors import InputError
from crossfilter_inference.util.text import counted
from crossfilter_inference.view.export import write_atlas, write_npy, write_parquet


def main(arguments: argparse.Namespace) -> str:
    if not (arguments.parquet or arguments.npy or arguments.atlas):
        raise InputError("nothing to export: name one of --parquet, --npy and --atlas")
    collection = Collection(_command.read_config(arguments))
    written = []
    if arguments.npy:
        written += [arguments.npy, write_npy(arguments.npy, collection)]
    contents = collection.read_map() if arguments.parquet or arguments.atlas else None
    if arguments.parquet:
        write_parquet(arguments.parquet, collection, contents)
        written.append(arguments.parquet)
    if arguments.atlas:
        write_atlas(arguments.atlas, collection, contents)
        written.append(arguments.atlas)
    return f"{counted(len(collection.uuids), 'photos')} in {', '.join(written)}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--parquet", help="embeddings, places and neighbours of all photos, as Parquet")
    options.add_argument("--npy", help="the embeddings as one array; UUIDs come beside it, in .uuids.txt")
    options.add_argument(
        "--atlas",
        help="Parquet for embedding-atlas FILE --x X --y Y --neighbors NEIGHBOURS",
    )
    _command.add_config(options)
    _command.run(main, options)
