r"""Make the map of all embeddings of a database, or bring it up to date.

Example:
    python scripts/fit_umap.py --type EFFICIENTNET_LITE0 --receipt embeddings.json --database photos.sqlite \
        --settings '{"n_neighbors": 15, "min_dist": 0.1, "radius": "auto", "random_state": 42, "update": "align",
                     "refit_share": 0.2, "compare_with_plane": false}' \
        --model umap_model.pkl --map map.tsv --neighbours neighbours.npz --quality map_quality.json \
        --threads 8
"""

import argparse
import json

import _command
from crossfilter_inference.map.job import make_map
from crossfilter_inference.util.files import write_stamp


def main(arguments: argparse.Namespace) -> str:
    done = make_map(
        arguments.receipt,
        arguments.database,
        arguments.type,
        arguments.settings,
        arguments.labels,
        (arguments.model, arguments.map, arguments.neighbours, arguments.quality),
        arguments.threads,
    )
    if arguments.stamp:
        write_stamp(arguments.stamp)
    return f"map: {done}"


if __name__ == "__main__":
    options = _command.parser(__doc__)
    options.add_argument("--type", required=True, help="embedding type")
    options.add_argument("--receipt", required=True, help="embeddings.json")
    options.add_argument("--database", required=True, help="database to read from")
    options.add_argument("--settings", type=json.loads, required=True, help="the section umap:, as JSON")
    options.add_argument("--model", required=True, help="umap_model.pkl to write")
    options.add_argument("--map", required=True, help="map.tsv to write")
    options.add_argument("--neighbours", required=True, help="neighbours.npz to write")
    options.add_argument("--quality", required=True, help="map_quality.json to write")
    options.add_argument("--labels", default="", help="table with columns UUID and LABEL")
    options.add_argument("--threads", type=int, default=1, help="cores to use; the map does not depend on it")
    options.add_argument("--stamp", help="empty file that names the settings")
    _command.add_log(options)
    _command.run(main, options)
