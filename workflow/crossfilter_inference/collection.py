"""Read a collection: embeddings, photos, the map, thumbnails; embed a query with its encoder."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from .db.connect import chunks, reading
from .db.embeddings import read_embeddings
from .db.provenance import recorded_encoder
from .db.state import state_folder
from .db.tables import Tables, check_format
from .embed.decode_process import DecodeProcess, Failed
from .encoders.identity import provenance_digest, read_encoder
from .encoders.protocol import Encoder, TextEncoder
from .errors import InputError
from .map.contents import (
    MapContents,
    MapFiles,
    find_words,
    is_missing,
    read_contents,
    read_manifest_paths,
    read_thumbnails,
)
from .map.words import Fits
from .photos.image import LoadedImage, Preprocessing
from .photos.scan import size_and_time
from .shards.plan import PlannedImage
from .util.files import damaged

_MAP_FILES = {"map": "map.tsv", "neighbours": "neighbours.npz", "quality": "map_quality.json"}


@dataclass(frozen=True)
class Photo:
    """A photo at the last run.

    `width` and `height` in pixels, `size` in bytes, `mtime_ns` in nanoseconds and the SHA-256 `digest` of the file are
    None if they are not recorded.
    """

    uuid: str
    path: str
    width: int | None = None
    height: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    digest: str | None = None


class Collection:
    """A database and its state folder.

    Parameters
    ----------
    database : str or Path
        Path, such as photos.sqlite.
    embedding_type : str, optional
        Needed if the database has embeddings of several types.
    device : {"auto", "cpu", "cuda", "mps"}
        Device of the encoder, which embeds queries.
    labels : str or Path
        CSV file with columns UUID and LABEL, to name regions of the map.
    backends : iterable of str
        Your own backends (Python files) that may be run to embed queries. A collection cannot name one by itself.

    Attributes
    ----------
    uuids : list of str
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1

    Raises
    ------
    InputError
        If the database has no embeddings.
    """

    def __init__(
        self,
        database: str | Path,
        embedding_type: str | None = None,
        *,
        device: str = "auto",
        labels: str | Path = "",
        backends: Iterable[str] = (),
    ):
        self.database = str(database)
        self.embedding_type = embedding_type or only_embedding_type(self.database)
        self.folder = Path(state_folder(self.database), self.embedding_type)
        self._device, self._labels, self._backends = device, str(labels), [*backends]
        self._tables = Tables(self.embedding_type)
        _check_exists(self.database)
        self.uuids: list[str] = []
        self.embeddings = np.empty((0, 0), "<f4")
        with reading(self.database) as connection:
            check_format(connection, self.embedding_type)
            if sa.inspect(connection).has_table(self._tables.embeddings.name):
                self.uuids, self.embeddings = read_embeddings(connection, self.embedding_type)
        if not self.uuids:
            raise InputError(
                f"{self.database!r} has no embeddings of type {self.embedding_type}; run the workflow, or name another "
                "embedding_type or output_embeddings_db"
            )
        self._all_uuids, self._rows = self.uuids, [*range(len(self.uuids))]

    @cached_property
    def encoder(self) -> dict[str, Any]:
        """The contents of `encoder.json`."""
        path = self.folder / "encoder.json"
        if not path.exists():
            raise InputError(f"{str(path)!r}, which describes the encoder, is missing; run the workflow to recreate it")
        encoder = read_encoder(path)
        with reading(self.database) as connection:
            recorded = recorded_encoder(connection, self.embedding_type).get("digest")
        if recorded not in (None, provenance_digest(encoder)):
            raise InputError(f"{str(path)!r} describes another encoder than that of the database; run the workflow")
        return encoder

    def keep(self, uuids: Iterable[str]) -> None:
        """Leave out all photos but these, from the map too.

        Raises
        ------
        ValueError
            If there is no photo with one of these UUIDs.
        """
        wanted = {*uuids}
        if unknown := wanted.difference(self.uuids):
            raise ValueError(f"no photos of the collection: {unknown}")
        rows = [row for row, uuid in enumerate(self.uuids) if uuid in wanted]
        self._rows = [self._rows[row] for row in rows]
        self.uuids, self.embeddings = [self.uuids[row] for row in rows], self.embeddings[rows]

    def photos(self, uuids: list[str]) -> dict[str, Photo]:
        """Look up photos by UUID, in the order of `uuids`."""
        images = self._tables.images
        query = sa.select(
            *(images.c.UUID, images.c.PATH, images.c.WIDTH, images.c.HEIGHT),
            *(images.c.SIZE, images.c.MTIME_NS, images.c.DIGEST),
        )
        found = {uuid: Photo(uuid, "") for uuid in uuids}
        with reading(self.database) as connection:
            if sa.inspect(connection).has_table(images.name):
                for chunk in chunks(uuids):
                    rows = connection.execute(query.where(images.c.UUID.in_(chunk)))
                    found.update((row.UUID, Photo(*row)) for row in rows)
        return found

    def is_missing(self, photo: Photo) -> bool:
        """Return whether a photo was missing at the last run, or its file is missing now; its row may be kept."""
        return is_missing(photo.uuid, photo.path, self.manifest)

    def path(self, photo: Photo) -> str:
        """Return the path of a photo at the last run."""
        return photo.path if self.manifest is None else self.manifest.get(photo.uuid, photo.path)

    @cached_property
    def manifest(self) -> dict[str, str] | None:
        """The path of each photo at the last run, by UUID; None if the manifest is missing."""
        return read_manifest_paths(self.folder / "manifest.tsv")

    def read_map(self) -> MapContents:
        """Read the map.

        Raises
        ------
        InputError
            If the map is missing, or does not show the same photos as the database.
        """
        for name in _MAP_FILES.values():
            if not (self.folder / name).exists():
                raise InputError(f"{str(self.folder / name)!r} is missing; to make the map, run the workflow")
        contents = read_contents(self.embedding_type, self._map_files())
        if contents.uuids != self._all_uuids:
            raise InputError("the map does not show the same photos as the database; to update it, run the workflow")
        return contents if self.uuids == self._all_uuids else contents.take(self._rows)

    def find_words(self) -> list[Fits]:
        """Find the photos that fit each word best, as rows of the map; see `find_words` of `map.contents`."""
        return find_words(self.embedding_type, self._map_files())

    def _map_files(self) -> MapFiles:
        words = self.folder / "words.npz"
        return MapFiles(
            database=self.database,
            embeddings=str(self.folder / "embeddings"),
            labels=self._labels,
            words=str(words) if words.exists() else "",
            **{key: str(self.folder / name) for key, name in _MAP_FILES.items()},
        )

    def thumbnails(self, uuids: list[str]) -> dict[str, bytes]:
        """Read thumbnails: JPEG, 192 pixels on the long side (older ones: 96); photos without one are left out."""
        return read_thumbnails(str(self.folder / "embeddings"), self.database, self.embedding_type, uuids)

    def load_image(self, path: str) -> LoadedImage:
        """Decode an image file in the same way as the photos of the collection, and within the same limits.

        Raises
        ------
        InputError
            If it is not a usable image; its cause is an ImageError.
        """
        status = size_and_time(os.stat(path)) if os.path.exists(path) else (0, 0)
        with DecodeProcess(self.preprocessing) as process:
            decoded = process.decode(PlannedImage("", path, *status, ""))
        if isinstance(decoded, Failed):
            raise InputError(
                f"--image: {path!r} cannot be used ({decoded.error}); name another file"
            ) from decoded.error
        return decoded.loaded

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the encoder's images.

        Raises
        ------
        InputError
            If `encoder.json` is damaged.
        """
        try:
            return Preprocessing.from_json(self.encoder["preprocessing"])
        except (KeyError, TypeError, ValueError):
            raise damaged(self.folder / "encoder.json") from None

    def embed_image(self, image: LoadedImage) -> np.ndarray:
        """Embed a decoded image.

        Returns
        -------
        array of shape (n_dims,), float32, of length 1

        Raises
        ------
        InputError
            If the encoder no longer matches `encoder.json`.
        """
        embedding: np.ndarray = self._image_encoder.encode_images(np.array(image.pixels[None]))[0]
        return embedding

    def embed_text(self, text: str) -> np.ndarray:
        """Embed a text.

        Returns
        -------
        array of shape (n_dims,), float32, of length 1

        Raises
        ------
        InputError
            If the encoder has no text tower, or does not know a word of the text.
        """
        embedding: np.ndarray = self._text_encoder.encode_texts([text])[0]
        return embedding

    @cached_property
    def _image_encoder(self) -> Encoder:
        from .encoders.registry import load_encoder

        return load_encoder(self.encoder, self._device, os.cpu_count() or 1, backends=self._backends)

    @cached_property
    def _text_encoder(self) -> TextEncoder:
        from .encoders.registry import load_text_encoder

        return load_text_encoder(self.encoder, backends=self._backends)


def only_embedding_type(database: str) -> str:
    """Find the embedding type of a database that has only one.

    Raises
    ------
    InputError
        If the database does not exist, or has no embeddings or several types.
    """
    _check_exists(database)
    with reading(database) as connection:
        tables = set(sa.inspect(connection).get_table_names())
    ending = "_PROVENANCE"
    types = sorted(table.removesuffix(ending) for table in tables if table.endswith(ending))
    types = [name for name in types if Tables(name).embeddings.name in tables]
    if len(types) == 1:
        return types[0]
    if types:
        raise InputError(
            f"{database!r} has embeddings of {len(types)} types; choose an embedding_type: {', '.join(types)}"
        )
    raise InputError(f"{database!r} has no embeddings; run the workflow, or name another output_embeddings_db")


def _check_exists(database: str) -> None:
    if not Path(database).exists():
        raise InputError(
            f"output_embeddings_db: {database!r} does not exist; run the workflow, or name another output_embeddings_db"
        )
