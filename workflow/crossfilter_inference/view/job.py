"""Draw the map: `map.html` to look around in, `map.png` and `map.svg` for papers."""

from ..map.contents import MapFiles, read_contents, read_thumbnails
from ..util.files import write_bytes, write_text
from ..util.text import counted
from .page import MOST_BYTES, choose_photos, make_page
from .picture import MOST_THUMBNAILS, draw_figure

_LEAST_THUMBNAIL = 2_000  # bytes on the page, and most have more


def draw_map(embedding_type: str, files: MapFiles, page: str, png: str, svg: str) -> str:
    """Draw the map.

    Parameters
    ----------
    embedding_type : str
    files : MapFiles
    page, png, svg : str
        Paths of what is drawn.

    Returns
    -------
    str
        What there is to be seen.

    Raises
    ------
    InputError
        If a file that the map is drawn from is damaged.
    """
    contents = read_contents(embedding_type, files)
    by_lot = contents.random_order()
    photos = choose_photos(by_lot)
    shown = by_lot[: MOST_BYTES // _LEAST_THUMBNAIL]
    found = read_thumbnails(files.embeddings, files.database, embedding_type, [contents.uuids[row] for row in shown])
    thumbnails = {row: found[contents.uuids[row]] for row in shown if contents.uuids[row] in found}

    picture, drawing, n_in_picture = draw_figure(contents, dict([*thumbnails.items()][:MOST_THUMBNAILS]))
    write_bytes(png, picture)
    write_bytes(svg, drawing)
    text, n_on_page = make_page(contents, photos, thumbnails)
    write_text(page, text)
    n_names = sum(bool(region.name) for region in contents.regions)
    return (
        f"{counted(len(contents), 'photos')} in {len(contents.regions)} regions, {n_names} of them with a name; "
        f"thumbnails: {n_on_page} on the page, {n_in_picture} in the picture"
    )
