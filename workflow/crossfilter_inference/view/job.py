"""Draw the map: `map.html` to explore it, `map.png` and `map.svg` for print."""

from itertools import islice

from ..map.contents import MapFiles, find_words, read_contents, read_thumbnails
from ..util.files import write_bytes, write_text
from ..util.text import counted
from .page import PageSettings, choose_photos, make_page
from .picture import MOST_THUMBNAILS, draw_figure

_THUMBNAILS_PER_MB = 500  # more do not fit on the page: most thumbnails take more than 2,000 bytes there


def draw_map(embedding_type: str, files: MapFiles, settings: PageSettings, page: str, png: str, svg: str) -> str:
    """Draw the map as a page and as pictures.

    Parameters
    ----------
    embedding_type : str
    files : MapFiles
        Files to read.
    settings : PageSettings
    page, png, svg : str
        Files to write.

    Returns
    -------
    str
        Counts of photos, regions and thumbnails.

    Raises
    ------
    InputError
        If a file of the map is damaged.
    """
    contents = read_contents(embedding_type, files)
    by_lot = contents.random_order()
    photos = choose_photos(by_lot, settings)
    most_thumbnails = settings["max_megabytes"] * _THUMBNAILS_PER_MB
    candidates = {row: contents.uuids[row] for row in by_lot[:most_thumbnails]}
    jpegs = read_thumbnails(files.embeddings, files.database, embedding_type, candidates.values())
    thumbnails = {row: jpegs[uuid] for row, uuid in candidates.items() if uuid in jpegs}

    png_bytes, svg_bytes, n_in_picture = draw_figure(contents, dict(islice(thumbnails.items(), MOST_THUMBNAILS)))
    write_bytes(png, png_bytes)
    write_bytes(svg, svg_bytes)
    html, n_on_page = make_page(contents, photos, thumbnails, find_words(embedding_type, files), settings)
    write_text(page, html)
    n_names = sum(bool(region.name) for region in contents.regions)
    return (
        f"{counted(len(contents), 'photos')} in {counted(len(contents.regions), 'regions')}, {n_names} named; "
        f"thumbnails: {n_on_page} on the page, {n_in_picture} in the picture"
    )
