"""The job of rule store_map."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.map.store import store_map
from crossfilter_inference.util.text import counted


def main(*, type: str, database: str, model: str, map: str, quality: str, receipt: str, generation: int = 1) -> str:
    r"""Store the UMAP model and the latitude and longitude of every photo in the database.

    Parameters
    ----------
    type : str
        Embedding type.
    database : str
        Database to write to.
    model : str
        umap_model.pkl.
    map : str
        map.tsv.
    quality : str
        map_quality.json.
    receipt : str
        Receipt to write.
    generation : int
        Generation to record in the receipt.

    Examples
    --------
        python scripts/store_map.py --type EFFICIENTNET_LITE0 --database photos.sqlite --model umap_model.pkl \
            --map map.tsv --quality map_quality.json --receipt map_stored.json
    """
    n_images = store_map(type, database, model, map, quality, receipt, generation=generation)
    return f"{database}: map of {counted(n_images, 'photos')}"


if __name__ == "__main__":
    run_job(main)
