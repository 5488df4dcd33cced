"""Check every file in the state folder that no other check opens."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from ..db.connect import reading
from ..db.tables import NewerFormat, Tables
from ..errors import InputError
from ..map.files import read_neighbours, read_positions
from ..map.words import read_words
from ..shards.journal import check_journal
from ..shards.plan import FAILED_COLUMNS, RETIRED_COLUMNS, read_plan, read_shard_list
from ..shards.shard import is_whole_jpeg
from ..util.files import damaged, read_json, read_tsv
from ..util.text import counted
from .problems import Problems
from .rows import is_intact_list, is_intact_shard

_MAP_FILES = ("map.html", "map.png", "map.svg", "map_quality.json", "map_stored.json", "neighbours.npz")


def check_files(folder: Path, merged: set[str], *, with_map: bool) -> str:
    """Check the files in the state folder of an embedding type that the other checks do not open.

    Parameters
    ----------
    folder : Path
        State folder of the embedding type.
    merged : set of str
        Shards that another check opens.
    with_map : bool
        Whether the files of the map must exist.

    Returns
    -------
    str
        Summary.

    Raises
    ------
    InputError
        If a file is damaged; it names the first files of each kind of problem.
    """
    problems, n_files = Problems(), 0
    for path in _files(folder, merged, with_map=with_map):
        n_files += 1
        if not path.exists():
            if with_map and path.name in _MAP_FILES:
                problems.add("files", "missing", path, "run the workflow")
        elif not _is_intact(path, folder.name):
            problems.add("files", "damaged", path, "delete these and run the workflow")
    problems.check()
    n_journals = len([*folder.glob("embeddings/.*.rows")])
    journals = f"; {counted(n_journals, 'journals')} of an interrupted run" if n_journals else ""
    return f"{counted(n_files, 'other files')} of the state folder intact{journals}"


def check_thumbnails(folder: Path, shards: list[str]) -> str:
    """Decode the thumbnails of all shards.

    Raises
    ------
    InputError
        If one is damaged; it names the shard databases.
    """
    thumbnails, problems, n_thumbnails = Tables(folder.name).thumbnails, Problems(), 0
    recreate = f"delete these and {str(folder / 'embeddings.json')!r}, and run the workflow"
    for shard in shards:
        path = folder / "embeddings" / f"{shard}.sqlite"
        with suppress(InputError), reading(path) as connection:  # check_shards reports a damaged database
            for (jpeg,) in connection.exec_driver_sql(f"SELECT JPEG FROM {thumbnails}"):
                n_thumbnails += 1
                if not is_whole_jpeg(jpeg, with_pixels=True):
                    problems.add("shard databases", "with a damaged thumbnail", path, recreate)
                    break
    problems.check()
    return f"{counted(n_thumbnails, 'thumbnails')} decoded"


def _files(folder: Path, merged: set[str], *, with_map: bool) -> Iterator[Path]:
    """Yield the files to check: those that a run writes in any case, and what exists besides."""
    names = ("config.json", "plan.tsv", "retired.tsv", "words.npz", *(_MAP_FILES if with_map else ()))
    yield from (folder / name for name in names)
    for pattern in ("failed.tsv", "embeddings/*.unread.tsv", "embeddings/.*.rows", "settings/*-*"):
        yield from sorted(folder.glob(pattern))
    for pattern in ("shards/[0-9]*.tsv", "embeddings/[0-9]*.sqlite"):
        yield from sorted(path for path in folder.glob(pattern) if path.stem not in merged)


def _is_intact(path: Path, embedding_type: str) -> bool:
    if path.parent.name == "settings":
        return path.is_file()
    if path.suffix == ".sqlite":
        return is_intact_shard(path, embedding_type)
    if path.parent.name == "shards":
        return is_intact_list(path)
    name = "unread.tsv" if path.name.endswith(".unread.tsv") else ".rows" if path.suffix == ".rows" else path.name
    try:
        _CHECKS[name](path)
    except NewerFormat:
        raise
    except InputError:
        return False
    return True


def _check_neighbours(path: Path) -> None:
    positions = path.with_name("map.tsv")
    if positions.exists():
        read_neighbours(str(path), len(read_positions(str(positions))[0]))


def _check_page(path: Path) -> None:
    text = path.read_text("utf-8", "replace")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    try:
        if (
            text.startswith("<!doctype html>")
            and text.rstrip().endswith("</html>")
            and json.loads(data[1] if data else "")
        ):
            return
    except ValueError:
        pass
    raise damaged(path)


def _check_picture(path: Path) -> None:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError):
        raise damaged(path) from None


def _check_drawing(path: Path) -> None:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError):
        raise damaged(path) from None
    if not root.tag.endswith("svg"):
        raise damaged(path)


_CHECKS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda path: read_json(path, embedding_type=str, output_embeddings_db=str),
    "plan.tsv": read_plan,
    "retired.tsv": lambda path: [*read_tsv(path, RETIRED_COLUMNS)],
    "failed.tsv": lambda path: [*read_tsv(path, FAILED_COLUMNS)],
    "unread.tsv": read_shard_list,
    ".rows": check_journal,
    "words.npz": lambda path: read_words(str(path)),
    "neighbours.npz": _check_neighbours,
    "map_quality.json": lambda path: read_json(path, action=str, n_images=int),
    "map_stored.json": lambda path: read_json(path, generation=int, digest=str),
    "map.html": _check_page,
    "map.png": _check_picture,
    "map.svg": _check_drawing,
}
