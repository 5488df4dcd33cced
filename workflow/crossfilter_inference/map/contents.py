"""Contents of a map for display: photos, positions, neighbours, regions and thumbnails."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ..db.connect import chunks, reading
from ..db.embeddings import read_embeddings
from ..db.tables import Tables, columns_in
from ..shards.plan import MANIFEST_COLUMNS
from ..shards.shard import read_thumbnails as read_shard_thumbnails
from ..util.files import damaged, read_json, read_tsv
from ..util.text import counted, printable
from .files import read_neighbours, read_positions
from .labels import read_labels
from .quality import nearest_on_map
from .regions import Region, describe_regions, find_labelled_regions, find_regions, name_by_words
from .sphere import unit_vectors_from_latitude_longitude
from .words import Fits, find_fits, read_words


@dataclass(frozen=True)
class MapFiles:
    """Paths of the files from which a map is drawn; `labels` and `words` may be empty."""

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
    facts : dict from str to list
        Recorded facts of each photo, by column of `<TYPE>_IMAGES`; None is unknown.
    missing : array of shape (n_images,), bool
        Photos that were missing at the last run, or whose file is missing now.
    latitude, longitude : arrays of shape (n_images,), float64, degrees
    neighbours : array of shape (n_images, k), int32
        Rows of the most similar photos, the nearest first; -1 is one that was left out.
    similarity : array of shape (n_images, k), float32
        Cosine similarity of `neighbours`, in [-1, 1].
    kept : array of shape (n_images,), float64, in [0, 1]
        Share of `neighbours` that are on the map no farther than the k-th nearest photo.
    region_of : array of shape (n_images,), int32
        Index in `regions`; -1 is none.
    regions : list of Region
    figures : dict
        The contents of `map_quality.json`.
    """

    embedding_type: str
    uuids: list[str]
    paths: list[str]
    facts: dict[str, list[Any]]
    missing: NDArray[np.bool_]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    neighbours: NDArray[np.int32]
    similarity: NDArray[np.float32]
    kept: NDArray[np.float64]
    region_of: NDArray[np.int32]
    regions: list[Region]
    figures: dict[str, Any]

    def __len__(self) -> int:
        return len(self.uuids)

    def random_order(self) -> list[int]:
        """Return all rows in a random order; adding or removing photos keeps the order of the others."""
        digests = [hashlib.sha256(uuid.encode()).digest() for uuid in self.uuids]
        return sorted(range(len(digests)), key=digests.__getitem__)

    def take(self, rows: Sequence[int]) -> "MapContents":
        """Return the contents of some rows; the neighbours are those among them."""
        chosen = np.array(rows, np.int64)
        new_row = np.full(len(self) + 1, -1, np.int32)  # the last one is for neighbours that were left out before
        new_row[chosen] = np.arange(len(chosen))
        return replace(
            self,
            uuids=[self.uuids[row] for row in rows],
            paths=[self.paths[row] for row in rows],
            facts={name: [values[row] for row in rows] for name, values in self.facts.items()},
            neighbours=new_row[self.neighbours[chosen]],
            **{
                name: getattr(self, name)[chosen]
                for name in ("missing", "latitude", "longitude", "similarity", "kept", "region_of")
            },
        )

    def region_name(self, number: int) -> str | None:
        """Return the printable name of a region; one without a name has a number, and -1 is none."""
        if number < 0:
            return None
        return printable(self.regions[number].name) or f"Region {number + 1}"

    def caption(self) -> str:
        """Return a line with the number of photos, the encoder and the quality of the map."""
        return ", ".join(filter(None, [f"{counted(len(self), 'photos')} by {self.embedding_type}", self.quality()]))

    def quality(self) -> str:
        """Return the figures of the map's quality; empty if they are unknown."""
        if "trustworthiness" not in self.figures:
            return ""
        kept = self.figures["neighbours_kept"]
        return f"trustworthiness {self.figures['trustworthiness']:.3f}, {kept:.0%} of neighbours kept"


def read_contents(embedding_type: str, files: MapFiles) -> MapContents:
    """Read everything that a map shows.

    Raises
    ------
    InputError
        If a file is damaged, or does not match the others.
    """
    uuids, latitude, longitude = read_positions(files.map)
    unit_vectors = unit_vectors_from_latitude_longitude(latitude, longitude)
    neighbours, similarity = read_neighbours(files.neighbours, len(uuids))
    paths, facts = _read_images(files.database, embedding_type, uuids)
    manifest = read_manifest_paths(Path(files.embeddings).parent / "manifest.tsv")
    region_of, names = _name_regions(embedding_type, files, uuids, paths, unit_vectors)
    kept = _share_kept(unit_vectors, neighbours)
    return MapContents(
        embedding_type,
        uuids,
        paths,
        facts,
        np.array([is_missing(uuid, path, manifest) for uuid, path in zip(uuids, paths, strict=True)], bool),
        latitude,
        longitude,
        neighbours,
        similarity,
        kept,
        region_of,
        describe_regions(unit_vectors, region_of, names),
        read_json(files.quality),
    )


def _share_kept(unit_vectors: NDArray[np.float64], neighbours: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the share of each photo's neighbours that are no farther on the map than its k-th nearest photo.

    Distances are compared, because any of many copies at one position may be among the k nearest.
    """
    n_images, k = neighbours.shape
    if not k:
        return np.zeros(n_images)

    def squared_chords(others: NDArray[np.integer]) -> NDArray[np.float64]:
        chords: NDArray[np.float64] = ((unit_vectors[others] - unit_vectors[:, None]) ** 2).sum(axis=2)
        return chords

    farthest = squared_chords(nearest_on_map(unit_vectors, np.arange(n_images), k)).max(axis=1)
    share: NDArray[np.float64] = (squared_chords(neighbours) <= farthest[:, None]).mean(axis=1)
    return share


def read_manifest_paths(path: Path) -> dict[str, str] | None:
    """Read the path of each photo at the last run, by UUID; None if the manifest is missing."""
    if not path.exists():
        return None
    return {uuid: image for uuid, image, *_ in read_tsv(path, MANIFEST_COLUMNS)}


def is_missing(uuid: str, path: str, manifest: dict[str, str] | None) -> bool:
    """Return whether a photo is not in the manifest of the last run, or its file does not exist now.

    Parameters
    ----------
    uuid : str
    path : str
        As the database has it, if there is no manifest.
    manifest : dict or None
        As `read_manifest_paths` returns it.
    """
    return not os.path.isfile(path if manifest is None else manifest.get(uuid, ""))


def read_thumbnails(
    embeddings_folder: str, database: str, embedding_type: str, uuids: Iterable[str]
) -> dict[str, bytes]:
    """Read thumbnails from the shards of the photos; missing ones are left out.

    They are JPEG files of 192 pixels on the long side; older ones have 96.
    """
    images = Tables(embedding_type).images
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
        found.update(read_shard_thumbnails(path, embedding_type, names))
    return found


def _read_images(database: str, embedding_type: str, uuids: list[str]) -> tuple[list[str], dict[str, list[Any]]]:
    """Read path and facts of photos; an older database lacks some facts."""
    tables = Tables(embedding_type)
    images = tables.images
    with reading(database) as connection:
        existing = columns_in(connection, images)
        facts = [name for name in tables.facts if name in existing]
        query = sa.select(images.c.UUID, images.c.PATH, *(images.c[name] for name in facts))
        rows = {uuid: values for uuid, *values in connection.execute(query)}
    unknown = [None] * len(facts)
    paths, *columns = zip(*(rows.get(uuid, (f"{uuid}.jpg", *unknown)) for uuid in uuids), strict=True)
    return list(paths), {name: list(column) for name, column in zip(facts, columns, strict=True)}


def _name_regions(
    embedding_type: str, files: MapFiles, uuids: list[str], paths: list[str], unit_vectors: NDArray[np.float64]
) -> tuple[NDArray[np.int32], list[str]]:
    """Find regions and name them: by labels, else by folders with telling names, else by words, else by any folders."""
    if files.labels:
        return _find_named_regions(unit_vectors, read_labels(files.labels, uuids))
    folders = [unicodedata.normalize("NFC", PurePosixPath(path).parent.name) for path in paths]
    region_of, names = find_labelled_regions(unit_vectors, [name if _is_telling(name) else None for name in folders])
    if len(names) > 1 and 2 * (region_of >= 0).sum() >= len(uuids):
        return region_of, names
    return _name_regions_by_words(embedding_type, files, unit_vectors) or _find_named_regions(unit_vectors, folders)


def _is_telling(folder: str) -> bool:
    """Return whether people gave a folder its name: it has a word, and is none that cameras and programs make."""
    return bool(re.search(r"[^\W\d_]{3}", folder)) and not re.fullmatch(
        r"\d{3}\w{5}|dcim|camera( roll)?|(my )?(photos?|pictures?|images?)|downloads?|screenshots?",
        folder,
        re.IGNORECASE,
    )


def _find_named_regions(
    unit_vectors: NDArray[np.float64], labels: Sequence[str | None]
) -> tuple[NDArray[np.int32], list[str]]:
    """Find the regions of labels, or else those of density, which have no names."""
    region_of, names = find_labelled_regions(unit_vectors, labels)
    if len(names) > 1:
        return region_of, names
    region_of = find_regions(unit_vectors)
    return region_of, [""] * (region_of.max(initial=-1) + 1)


def _name_regions_by_words(
    embedding_type: str, files: MapFiles, unit_vectors: NDArray[np.float64]
) -> tuple[NDArray[np.int32], list[str]] | None:
    if not (found := _read_words(embedding_type, files)):
        return None
    region_of = find_regions(unit_vectors)
    has_synonyms = any("\n" in words for words in found[1])
    return region_of, name_by_words(region_of, *found, prefer_first=has_synonyms)


def find_words(embedding_type: str, files: MapFiles) -> list[Fits]:
    """Find the photos that fit each word best, as rows of the map; empty if the encoder does not understand text.

    Raises
    ------
    InputError
        If the file of the words is damaged.
    """
    found = _read_words(embedding_type, files)
    return find_fits(*found) if found else []


def _read_words(
    embedding_type: str, files: MapFiles
) -> tuple[NDArray[np.float32], list[str], NDArray[np.float32]] | None:
    """Read the embeddings of photos, words, and the embeddings of these; None if there are no words."""
    words, word_embeddings = read_words(files.words) if files.words else ([], np.empty((0, 0), np.float32))
    if not words:
        return None
    with reading(files.database) as connection:
        _, embeddings = read_embeddings(connection, embedding_type)
    if word_embeddings.shape[1:] != embeddings.shape[1:]:
        raise damaged(files.words)
    return embeddings, words, word_embeddings
