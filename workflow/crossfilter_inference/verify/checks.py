"""Is it all right? Do database, manifest, shards and map agree: one check after the other, each with its way out.

Nothing is written; a database is open for reading only, and only while it is read. Rows pass by some at a time.
"""

import fcntl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from ..config import Config
from ..db.connect import reading
from ..db.digest import digest_rows
from ..db.provenance import read_provenance, unknown_rows
from ..db.state import state_folder
from ..db.tables import FORMAT_VERSION, Tables, check_format, columns_in
from ..encoders.identity import RESOLVED_KEYS
from ..errors import InputError
from ..photos.scan import scan_folders
from ..util.files import damaged, read_json
from .rows import STRANGE, check_embeddings, check_integrity, check_shards, using, way_back
from .sample import Sample
from .tables import check_fates, check_map, check_provenance


@dataclass(frozen=True)
class Check:
    """What a check found; `state` is ok, FAILED or skipped."""

    name: str
    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<9}{self.name:<12}{self.text}"


def verify(config: Config, *, n_sample: int, n_threads: int) -> Iterator[Check]:
    """Make every check, and yield what it found.

    Parameters
    ----------
    config : Config
    n_sample : int
        Photos that are embedded again.
    n_threads : int
        Cores to use.

    Raises
    ------
    InputError
        If a run is at work.
    """
    collection = _Collection(config)
    run = collection.check_no_run()
    database = collection.make("database", collection.check_database)
    yield database
    checks = {
        "embeddings": collection.check_embeddings,
        "digest": collection.check_digest,
        "fates": collection.check_fates,
        "shards": collection.check_shards,
        "provenance": collection.check_provenance,
        "map": collection.check_map,
        "sample": partial(collection.check_sample, n_sample, n_threads),
    }
    if not n_sample:
        del checks["sample"]
    for name, check in checks.items():
        if database.state == "ok" or name == "shards":  # from which it may have to be rebuilt
            yield collection.make(name, check)
        else:
            yield Check(name, "skipped", "for want of the database")
    if collection.check_no_run() != run:
        raise InputError("a run was at work meanwhile; verify again")


def closing_line(checks: list[Check]) -> str:
    """Say how it stands."""
    states = Counter(check.state for check in checks)
    return f"{states['FAILED']} of {len(checks)} checks failed" if states["FAILED"] else "all is well"


class _Skipped(Exception):
    """Why a check need not be made, or cannot."""


class _Collection:
    """A database and what lies beside it."""

    def __init__(self, config: Config):
        self._config, self._type = config, config.embedding_type
        self._database = config.output_embeddings_db
        self._root = Path(state_folder(self._database))
        self._folder = self._root / self._type
        self._tables = Tables(self._type)
        self._rebuild = f"delete {self._database!r} and run snakemake, it is rebuilt from the shards"
        self._recorded: dict[str, str] = {}
        there = sorted(path.stem for path in self._folder.glob("embeddings/[0-9]*.sqlite"))
        self._merged: dict[str, str | None] = dict.fromkeys(there)  # until the database tells
        self._n_rows = 0

    def make(self, name: str, check: Callable[[], str]) -> Check:
        """Make one check; whatever is damaged, it comes to a line."""
        try:
            return Check(name, "ok", check())
        except _Skipped as why:
            return Check(name, "skipped", str(why))
        except InputError as error:
            text = str(error)
        except OSError as error:
            text = f"{str(error.filename)!r} cannot be read ({error.strerror}): see to it"
        except STRANGE as error:
            text = f"there are values that no run has written ({type(error).__name__}: {error}): {self._rebuild}"
        return Check(name, "FAILED", text)

    def check_no_run(self) -> int:
        """Return what tells the last run from the next; look at the lock without keeping a run from taking it."""
        with suppress(FileNotFoundError), open(self._root / ".lock", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"a run is at work on {self._database!r}; verify when it has ended") from None
        plan = self._folder / "plan.tsv"
        return plan.stat().st_mtime_ns if plan.exists() else 0

    def check_database(self) -> str:
        if not Path(self._database).exists():
            if any(Path(self._folder, "embeddings").glob("*.sqlite")):
                raise InputError(
                    f"{self._database!r} is missing: run snakemake, it is made of the shards that there are"
                )
            raise InputError(f"there is no {self._database!r}, and no shards of it; run snakemake, or name another one")
        tables = self._tables
        with reading(self._database) as connection:
            if found := check_integrity(connection):
                raise InputError(f"{self._database!r} is damaged ({found}): {self._rebuild}")
            self._recorded = read_provenance(connection, self._type)
            self._check_tables(connection)
            self._n_rows = connection.scalar(sa.select(sa.func.count()).select_from(tables.embeddings))
            self._merged = dict(connection.execute(sa.select(tables.shards)).tuples().all())
        return f"{self._database} is sound"

    def _check_tables(self, connection: Connection) -> None:
        tables, found = self._tables, check_format(connection, self._type)
        if self._recorded and found < FORMAT_VERSION:
            raise InputError(f"{self._database!r} has format {found}: run snakemake, which upgrades it")
        for table in (tables.embeddings, tables.images, tables.failures, tables.shards):
            if columns_in(connection, table) != table.c.keys():  # the user may have added others
                fix = self._rebuild if self._recorded else "run snakemake"
                raise InputError(f"{self._database!r} has no table {table} with its columns: {fix}")
        names = sa.inspect(connection).get_table_names()
        others = [name for name in names if name.endswith("_EMBEDDINGS") and name != tables.embeddings.name]
        if others:
            self._rebuild += f" (run it for {', '.join(others)} too)"
        if n_unknown := len(unknown_rows(connection, self._type)):
            self._rebuild += f"; but keep a copy: {n_unknown} rows of unknown origin are in no shard"

    @cached_property
    def _encoder(self) -> dict:
        path = self._folder / "encoder.json"
        with using(path):
            encoder = read_json(path)
            if encoder.get("name") != self._type or not encoder.keys() >= {"backend", *RESOLVED_KEYS}:
                raise damaged(path)
            return encoder

    def check_embeddings(self) -> str:
        n_dims = self._encoder["dimension"]
        with reading(self._database) as connection:
            return check_embeddings(connection, self._type, n_dims, self._n_rows, self._rebuild)

    def check_digest(self) -> str:
        with reading(self._database) as connection:
            n_rows, digest = digest_rows(connection, self._type)
        recorded = self._recorded.get("embeddings_rows"), self._recorded.get("embeddings_digest")
        if recorded != (str(n_rows), digest):
            raise InputError(
                f"something else has changed rows: {n_rows} with digest {digest[:8]} are there, {recorded[0]} with "
                f"{str(recorded[1])[:8]} were stored: {self._rebuild}"
            )
        receipt = self._folder / "embeddings.json"
        with using(receipt):
            told = read_json(receipt)
        if (told.get("n_embeddings"), told.get("digest")) != (n_rows, digest):
            raise InputError(f"{str(receipt)!r} is of another database: {way_back(receipt)}")
        return f"{n_rows} rows with digest {digest[:8]}, as they were stored"

    def check_fates(self) -> str:
        scan = scan_folders(self._config.input_dir, self._config.image_extensions)
        keep = self._config.missing_images == "keep"
        with reading(self._database) as connection:
            return check_fates(connection, self._type, self._folder, scan, keep=keep, rebuild=self._rebuild)

    def check_shards(self) -> str:
        return check_shards(self._folder, self._type, self._merged, self._n_rows)

    def check_provenance(self) -> str:
        recorded = self._recorded.get("encoder_digest")
        return check_provenance(recorded, self._encoder, self._folder, [*self._merged], self._rebuild)

    def check_map(self) -> str:
        if not self._config.reproject_umap_embeddings:
            raise _Skipped("reproject_umap_embeddings is false")
        if "map_digest" not in self._recorded:
            raise _Skipped("there is none yet: run snakemake")
        with reading(self._database) as connection:
            return check_map(connection, self._type, self._folder, self._rebuild)

    def check_sample(self, n_images: int, n_threads: int) -> str:
        max_pixels = int(self._config.max_megapixels * 1e6)
        sample = Sample(self._database, self._folder, self._encoder, max_pixels)
        if found := sample.check(n_images, self._config.device, n_threads):
            return found
        raise _Skipped("no photo is there as it was embedded")
