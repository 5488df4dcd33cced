r"""Draw the map: a page with the globe, and pictures of the whole sphere for papers.

Example:
    python scripts/draw_map.py --type EFFICIENTNET_LITE0 --map map.tsv --neighbours neighbours.npz \
        --quality map_quality.json --database photos.sqlite --embeddings embeddings \
        --page map.html --png map.png --svg map.svg
"""

import argparse

import _command
from crossfilter_inference.map.contents import MapFiles
from crossfilter_inference.view.job import draw_map


def main(arguments: argparse.Namespace) -> str:
    names = ("map", "neighbours", "quality", "database", "embeddings", "labels", "words")
    files = MapFiles(**{name: getattr(arguments, name) for name in names})
    shown = draw_map(arguments.type, files, arguments.page, arguments.png, arguments.svg)
    return f"{arguments.page}: {shown}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--type", required=True, help="embedding type")
    options.add_argument("--map", required=True, help="map.tsv")
    options.add_argument("--neighbours", required=True, help="neighbours.npz")
    options.add_argument("--quality", required=True, help="map_quality.json")
    options.add_argument("--database", required=True, help="database to read paths and times from")
    options.add_argument("--embeddings", required=True, help="folder of the shard databases, which hold thumbnails")
    options.add_argument("--labels", default="", help="table with columns UUID and LABEL, to name regions by")
    options.add_argument("--words", default="", help="words.npz, to name regions by where there are no labels")
    options.add_argument("--page", required=True, help="HTML to write")
    options.add_argument("--png", required=True, help="PNG to write")
    options.add_argument("--svg", required=True, help="SVG to write")
    _command.add_log(options)
    _command.run(main, options)
