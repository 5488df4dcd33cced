"""What there is to be seen on a map: its photos, their places and neighbours, regions, thumbnails."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import sqlalchemy as sa

from ..db.connect import chunks, reading
from ..db.embeddings import read_embeddings
from ..db.tables import Tables
from ..util.files import damaged, read_json, read_tsv
from ..util.text import counted
from .quality import nearest_places, read_labels
from .regions import Region, describe_regions, find_labelled_regions, find_regions, name_by_words
from .settings import MAP_COLUMNS
from .sphere import unit_vectors_from_latitude_longitude


@dataclass(frozen=True)
class MapFiles:
    """Paths of what a map is drawn from; `labels` and `words` may be empty."""

    map: str
    neighbours: str
    quality: str
    database: str
    embeddings: str
    labels: str = ""
    words: str = ""


@dataclass(frozen=True)
class MapContents:
    """All photos of a map, in the order of `map.tsv`.

    Attributes
    ----------
    embedding_type : str
    uuids, paths : list of str
    taken : list of str or None
        ISO 8601 without a zone.
    latitude, longitude : arrays of shape (n_images,), float64, degrees
    neighbours : array of shape (n_images, k), int32
        Rows of the photos that are most alike, the nearest first.
    similarity : array of shape (n_images, k), float32
        Cosine, in [-1, 1].
    kept : array of shape (n_images,), float64, in [0, 1]
        Share of these that are among the k nearest on the map.
    region_of : array of shape (n_images,), int32
        Row of `regions`; -1 is none.
    regions : list of Region
    figures : dict
        The contents of `map_quality.json`.
    """

    embedding_type: str
    uuids: list[str]
    paths: list[str]
    taken: list[str | None]
    latitude: np.ndarray
    longitude: np.ndarray
    neighbours: np.ndarray
    similarity: np.ndarray
    kept: np.ndarray
    region_of: np.ndarray
    regions: list[Region]
    figures: dict

    def __len__(self) -> int:
        return len(self.uuids)

    def by_lot(self) -> list[int]:
        """Give all photos in an order by lot, which stays almost the same when photos have come."""
        lots = [hashlib.sha256(uuid.encode()).digest() for uuid in self.uuids]
        return sorted(range(len(lots)), key=lots.__getitem__)

    def caption(self) -> str:
        """Say what it is a map of, by what, and how good it is."""
        text = f"{counted(len(self), 'photos')} by {self.embedding_type}"
        if "trustworthiness" in self.figures:
            kept = self.figures["neighbours_kept"]
            text += f", trustworthiness {self.figures['trustworthiness']:.3f}, {kept:.0%} of neighbours kept"
        return text


def read_contents(embedding_type: str, files: MapFiles) -> MapContents:
    """Read what a map shows.

    Raises
    ------
    InputError
        If a file is damaged, or does not belong to the others.
    """
    rows = list(read_tsv(files.map, MAP_COLUMNS))
    uuids = [uuid for uuid, _, _ in rows]
    latitude, longitude = np.array([(lat, lon) for _, lat, lon in rows], float).reshape(-1, 2).T
    unit_vectors = unit_vectors_from_latitude_longitude(latitude, longitude)
    neighbours, similarity = read_neighbours(files.neighbours, len(uuids))
    images = _read_images(files.database, embedding_type)
    paths, taken = zip(*(images.get(uuid, (f"{uuid}.jpg", None)) for uuid in uuids), strict=True)
    region_of, names = _regions(embedding_type, files, uuids, list(paths), unit_vectors)
    k = neighbours.shape[1]
    on_map = nearest_places(unit_vectors, np.arange(len(uuids)), k) if k else neighbours
    return MapContents(
        embedding_type,
        uuids,
        list(paths),
        list(taken),
        latitude,
        longitude,
        neighbours,
        similarity,
        (neighbours[:, :, None] == on_map[:, None, :]).any(axis=2).mean(axis=1) if k else np.zeros(len(uuids)),
        region_of,
        describe_regions(unit_vectors, region_of, names),
        read_json(files.quality),
    )


def read_neighbours(path: str, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Read `neighbours.npz`.

    Returns
    -------
    indices : array of shape (n_images, k), int32
    similarity : array of shape (n_images, k), float32

    Raises
    ------
    InputError
        If it is damaged, or not of so many photos.
    """
    try:
        with np.load(path) as arrays:
            indices, distances = arrays["indices"], arrays["distances"]
    except (OSError, ValueError, KeyError, EOFError):
        raise damaged(path) from None
    if len(indices) != n_images:
        raise damaged(path)
    return indices, 1 - distances


def read_thumbnails(
    embeddings_folder: str, database: str, embedding_type: str, uuids: Iterable[str]
) -> dict[str, bytes]:
    """Read thumbnails, JPEG files of 96 pixels on the long side, from the shards that own the photos."""
    images, thumbnails = Tables(embedding_type).images, Tables(embedding_type).thumbnails
    owned = defaultdict(list)
    with reading(database) as connection:
        for chunk in chunks(uuids):
            query = sa.select(images.c.UUID, images.c.SHARD).where(images.c.UUID.in_(chunk))
            for uuid, shard in connection.execute(query):
                owned[shard].append(uuid)
    found: dict[str, bytes] = {}
    for shard, names in owned.items():
        path = Path(embeddings_folder, f"{shard}.sqlite")
        if not path.exists():
            continue
        with reading(path) as connection:
            for chunk in chunks(names):
                query = sa.select(thumbnails).where(thumbnails.c.UUID.in_(chunk))
                found.update(connection.execute(query).tuples().all())
    return found


def _read_images(database: str, embedding_type: str) -> dict[str, tuple[str, str | None]]:
    images = Tables(embedding_type).images
    with reading(database) as connection:
        rows = connection.execute(sa.select(images.c.UUID, images.c.PATH, images.c.TAKEN))
        return {uuid: (path, taken) for uuid, path, taken in rows}


def _regions(
    embedding_type: str, files: MapFiles, uuids: list[str], paths: list[str], unit_vectors: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Find regions and name them: by labels, else by words that the encoder understands, else by folders."""
    if files.labels:
        known = read_labels(files.labels)
        labels = [known.get(uuid.replace("-", "").lower()) for uuid in uuids]
    elif files.words and (named := _regions_by_words(embedding_type, files, unit_vectors)):
        return named
    else:
        labels = [PurePosixPath(path).parent.name for path in paths]
    region_of, names = find_labelled_regions(unit_vectors, labels)
    if len(names) > 1:
        return region_of, names
    region_of = find_regions(unit_vectors)
    return region_of, [""] * (region_of.max(initial=-1) + 1)


def _regions_by_words(
    embedding_type: str, files: MapFiles, unit_vectors: np.ndarray
) -> tuple[np.ndarray, list[str]] | None:
    with np.load(files.words) as arrays:
        words, word_embeddings = arrays["words"].tolist(), arrays["embeddings"]
    if not words:  # it turned out that the encoder has none
        return None
    region_of = find_regions(unit_vectors)
    with reading(files.database) as connection:
        _, embeddings = read_embeddings(connection, embedding_type)
    return region_of, name_by_words(region_of, embeddings, words, word_embeddings)
