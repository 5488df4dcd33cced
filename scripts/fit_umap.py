"""The job of rule fit_umap."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.map.job import make_map
from crossfilter_inference.map.settings import MapSettings


def main(
    *,
    type: str,
    receipt: str,
    database: str,
    settings: MapSettings,
    model: str,
    map: str,
    neighbours: str,
    quality: str,
    labels: str = "",
    threads: int = 1,
) -> str:
    r"""Make or update the map of all embeddings in a database.

    Parameters
    ----------
    type : str
        Embedding type.
    receipt : str
        embeddings.json.
    database : str
        Database to read from.
    settings : dict
        Section umap: of the configuration, as JSON.
    model : str
        umap_model.pkl to write.
    map : str
        map.tsv to write.
    neighbours : str
        neighbours.npz to write.
    quality : str
        map_quality.json to write.
    labels : str
        CSV file with columns UUID and LABEL, to measure map quality.
    threads : int
        CPU cores to use; the number does not affect the map.

    Examples
    --------
        python scripts/fit_umap.py --type EFFICIENTNET_LITE0 --receipt embeddings.json --database photos.sqlite \
            --settings '{"n_neighbors": 15, "min_dist": "auto", "radius": "auto", "repulsion": "auto",
            "random_state": 42, "update": "align", "refit_share": 0.2, "compare_with_plane": false}' \
            --model umap_model.pkl --map map.tsv --neighbours neighbours.npz --quality map_quality.json --threads 8
    """
    return f"map: {make_map(receipt, database, type, settings, labels, (model, map, neighbours, quality), threads)}"


if __name__ == "__main__":
    run_job(main)
