r"""Put the UMAP model and every photo's latitude and longitude into the database.

Example:
    python scripts/store_map.py --type EFFICIENTNET_LITE0 --database photos.sqlite --model umap_model.pkl \
        --map map.tsv --quality map_quality.json --receipt map_stored.json
"""

import argparse

import _command
from crossfilter_inference.map.store import store_map
from crossfilter_inference.util.files import write_stamp
from crossfilter_inference.util.text import counted


def main(arguments: argparse.Namespace) -> str:
    n_images = store_map(
        arguments.type,
        arguments.database,
        arguments.model,
        arguments.map,
        arguments.quality,
        arguments.receipt,
        generation=arguments.generation,
    )
    if arguments.stamp:
        write_stamp(arguments.stamp)
    return f"{arguments.database}: map of {counted(n_images, 'photos')}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--type", required=True, help="embedding type")
    options.add_argument("--database", required=True, help="database to write to")
    options.add_argument("--model", required=True, help="umap_model.pkl")
    options.add_argument("--map", required=True, help="map.tsv")
    options.add_argument("--quality", required=True, help="map_quality.json")
    options.add_argument("--receipt", required=True, help="receipt to write")
    options.add_argument("--generation", type=int, default=1, help="number that the receipt gets")
    options.add_argument("--stamp", help="empty file that names the generation")
    _command.add_log(options)
    _command.run(main, options)
