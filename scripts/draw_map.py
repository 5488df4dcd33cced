"""The job of rule draw_map."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.map.contents import MapFiles
from crossfilter_inference.view.job import draw_map
from crossfilter_inference.view.page import PageSettings


def main(
    *,
    type: str,
    map: str,
    neighbours: str,
    quality: str,
    database: str,
    embeddings: str,
    labels: str = "",
    words: str = "",
    settings: PageSettings,
    page: str,
    png: str,
    svg: str,
) -> str:
    r"""Draw the globe page, and pictures of the whole sphere for papers.

    Parameters
    ----------
    type : str
        Embedding type.
    map : str
        map.tsv.
    neighbours : str
        neighbours.npz.
    quality : str
        map_quality.json.
    database : str
        Database to read paths and times from.
    embeddings : str
        Folder of the shard databases, which hold the thumbnails.
    labels : str
        CSV file with columns UUID and LABEL, to name regions.
    words : str
        words.npz, to name regions if no labels are given.
    settings : dict
        Section page: of the configuration, as JSON.
    page : str
        HTML file to write.
    png : str
        PNG file to write.
    svg : str
        SVG file to write.

    Examples
    --------
        python scripts/draw_map.py --type EFFICIENTNET_LITE0 --map map.tsv --neighbours neighbours.npz \
            --quality map_quality.json --database photos.sqlite --embeddings embeddings \
            --settings '{"thumbnail_size": "auto", "max_megabytes": 95}' --page map.html --png map.png --svg map.svg
    """
    files = MapFiles(map, neighbours, quality, database, embeddings, labels, words)
    return f"{page}: {draw_map(type, files, settings, page, png, svg)}"


if __name__ == "__main__":
    run_job(main)
