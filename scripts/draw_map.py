r"""Draw the map: the whole sphere, equal-area, with the photos' thumbnails.

Example:
    python scripts/draw_map.py --type EFFICIENTNET_LITE0 --map map.tsv --embeddings embeddings \
        --output map.png
"""

import argparse

import _command
from crossfilter_inference.figures import draw_map


def main(arguments: argparse.Namespace) -> str:
    n_images, n_thumbnails = draw_map(arguments.map, arguments.embeddings, arguments.type, arguments.output)
    return f"{arguments.output}: {n_images} photos, {n_thumbnails} of them as thumbnails"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--type", required=True, help="embedding type")
    options.add_argument("--map", required=True, help="map.tsv")
    options.add_argument("--embeddings", required=True, help="folder of the shard databases, which hold thumbnails")
    options.add_argument("--output", required=True, help="PNG to write")
    _command.add_log(options)
    _command.run(main, options)
