"""Verify a collection: run every check in order, without writing anything.

A database is opened read-only, and only while a check reads it. Rows are read in chunks.
"""

import fcntl
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..config import Config
from ..db import crossfilter
from ..db.connect import reading
from ..db.digest import digest_rows
from ..db.photos_view import VIEW_MARK
from ..db.provenance import unknown_rows
from ..db.state import state_folder
from ..db.tables import FORMAT_VERSION, Tables, check_format, columns_in, read_provenance
from ..encoders.identity import read_encoder
from ..errors import InputError
from ..shards.naming import scan_photos
from ..shards.plan import read_last_plan
from ..util.files import damaged, read_json
from ..util.text import counted
from .files import check_files, check_thumbnails
from .problems import delete_and_run, reading_file
from .rows import check_embeddings, check_integrity, check_shards, check_values
from .sample import Sample
from .tables import check_map, check_outcomes, check_provenance


@dataclass(frozen=True)
class Check:
    """The result of a check; `state` is ok, FAILED or skipped."""

    name: str
    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<9}{self.name:<12}{self.text}"


def verify(config: Config, *, n_sample: int, n_threads: int, backends: Iterable[str] = ()) -> Iterator[Check]:
    """Run every check, and yield its result.

    Parameters
    ----------
    config : Config
    n_sample : int
        Number of photos to embed again; 0 skips this check.
    n_threads : int
        Number of cores to use.
    backends : iterable of str
        The Python files that the user names as backends; see `load_encoder`.

    Raises
    ------
    InputError
        If a run is in progress.
    """
    collection = _Collection(config)
    last_run = collection.check_no_run()
    database = collection.run("database", collection.check_database)
    yield database
    checks: dict[str, Callable[[], str]] = {
        "embeddings": collection.check_embeddings,
        "digest": collection.check_digest,
        "outcomes": collection.check_outcomes,
        "shards": collection.check_shards,
        "provenance": collection.check_provenance,
        "map": collection.check_map,
        "files": collection.check_files,
        "thumbnails": collection.check_thumbnails,
    }
    if n_sample:
        checks["sample"] = partial(collection.check_sample, n_sample, n_threads, backends)
    for name, check in checks.items():
        # The database may have to be rebuilt from the shards.
        if database.state == "ok" or name in ("shards", "files", "thumbnails"):
            yield collection.run(name, check)
        else:
            yield Check(name, "skipped", "requires the database")
    if collection.check_no_run() != last_run:
        raise InputError("a run took place during verification; verify again")


def closing_line(checks: list[Check]) -> str:
    """Summarise the results in one line."""
    states = Counter(check.state for check in checks)
    if states["FAILED"]:
        return f"{states['FAILED']} of {counted(len(checks), 'checks')} failed"
    skipped = f", {states['skipped']} skipped" if states["skipped"] else ""
    return f"all checks passed{skipped}"


class _Skipped(Exception):
    """Why a check does not apply."""


class _Collection:
    """A database and its state folder, with a method for each check."""

    def __init__(self, config: Config):
        self._config, self._type = config, config.embedding_type
        self._database = config.output_embeddings_db
        self._root = Path(state_folder(self._database))
        self._folder = self._root / self._type
        self._tables = Tables(self._type)
        self._rebuild = f"move {self._database!r} aside and run the workflow to rebuild it from the shards"
        self._recorded: dict[str, str] = {}
        # Digests of the merged shards: unknown until the database has been read.
        shards = sorted(path.stem for path in self._folder.glob("embeddings/[0-9]*.sqlite"))
        self._merged: dict[str, str | None] = dict.fromkeys(shards)
        self._n_rows = 0

    def run(self, name: str, check: Callable[[], str]) -> Check:
        """Run one check; damage of any kind ends in one line, and so does a fault of this program."""
        try:
            return Check(name, "ok", check())
        except _Skipped as reason:
            return Check(name, "skipped", str(reason))
        except InputError as error:
            text = str(error)
        except OSError as error:
            where = f" {str(error.filename)!r}" if error.filename else ""
            text = f"cannot read{where} ({error.strerror or error}): fix this and verify again"
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {' '.join(str(error).split())}, {frame.filename}:{frame.lineno}"
            text = f"internal error (please report this): {what}; it says nothing about your files, so delete none"
        return Check(name, "FAILED", text)

    def check_no_run(self) -> int:
        """Return a number that identifies the last run. Testing the lock does not prevent a run from starting.

        Raises
        ------
        InputError
            If a run is in progress.
        """
        with suppress(FileNotFoundError), open(self._root / ".lock", "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"a run is in progress on {self._database!r}; verify again after it ends") from None
            except OSError:  # where a file system has no locks, no run can be in progress
                pass
        plan = self._folder / "plan.tsv"
        return plan.stat().st_mtime_ns if plan.exists() else 0

    def check_database(self) -> str:
        if not Path(self._database).exists():
            if self._merged:
                raise InputError(f"{self._database!r} is missing: run the workflow to rebuild it from the shards")
            raise InputError(
                f"{self._database!r} does not exist, and has no shards: run the workflow, or name another database"
            )
        tables = self._tables
        with reading(self._database) as connection:
            if complaints := check_integrity(connection):
                raise InputError(f"{self._database!r} is damaged ({complaints}): {self._rebuild}")
            self._recorded = read_provenance(connection, self._type)
            self._check_tables(connection)
            check_values(connection, self._type, self._rebuild)
            self._n_rows = connection.scalars(sa.select(sa.func.count()).select_from(tables.embeddings)).one()
            self._merged = dict(connection.execute(sa.select(tables.shards)).tuples().all())
        return f"{self._database} is intact"

    def _check_tables(self, connection: Connection) -> None:
        tables, found = self._tables, check_format(connection, self._type)
        if self._recorded and found < FORMAT_VERSION:
            raise InputError(f"{self._database!r} has format {found}: run the workflow, which upgrades it")
        for table in (tables.embeddings, tables.images, tables.failures, tables.shards):
            columns = columns_in(connection, table)  # the user may have added others
            if missing := [column.name for column in table.c if column.name not in columns]:
                what = f"column {missing[0]} of table {table}" if columns else f"table {table}"
                fix = self._rebuild if self._recorded else "run the workflow"
                raise InputError(f"{self._database!r}: {what} is missing: {fix}")
        names = sa.inspect(connection).get_table_names()
        types = [name.removesuffix("_EMBEDDINGS") for name in names if name.endswith("_EMBEDDINGS")]
        others = [name for name in types if name != self._type and f"{name}_EMBEDDINGS" not in crossfilter.TABLES]
        if others:
            self._rebuild += f", then again with embedding_type {', '.join(others)}"
        self._rebuild += self._own_things(connection)
        if n_unknown := len(unknown_rows(connection, self._type)):
            self._rebuild += f"; keep a copy, because no shard holds the {counted(n_unknown, 'rows')} of unknown origin"

    def _own_things(self, connection: Connection) -> str:
        """Name what the user added to the database, which no shard holds; empty if there is nothing."""
        tables = {table.name: table for table in self._tables.metadata.sorted_tables}
        # Other embedding types have tables of the same endings.
        ours = tuple(name.removeprefix(self._type) for name in tables)
        things = connection.exec_driver_sql(
            "SELECT name, tbl_name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND sql IS NOT NULL"
            " AND instr(sql, ?) = 0 ORDER BY name",
            (VIEW_MARK,),
        ).all()
        own = [
            name for name, table in things if name in crossfilter.TABLES or not (name == table and name.endswith(ours))
        ]
        for name, table in tables.items():
            found = connection.exec_driver_sql("SELECT name FROM pragma_table_info(?)", (name,)).scalars()
            own += [f"{name}.{column}" for column in found if column not in table.c]
        names = f"{', '.join(own[:3])}{', ...' if own[3:] else ''}"
        return f"; copy what you added ({names}) from the old file" if own else ""

    @cached_property
    def _encoder(self) -> dict[str, Any]:
        path = self._folder / "encoder.json"
        with reading_file(path):
            encoder = read_encoder(path)
            if encoder["name"] != self._type:
                raise damaged(path)
            return encoder

    def check_embeddings(self) -> str:
        n_dims = self._encoder["dimension"]
        with reading(self._database) as connection:
            return check_embeddings(connection, self._type, n_dims, self._n_rows, self._rebuild)

    def check_digest(self) -> str:
        with reading(self._database) as connection:
            n_rows, digest = digest_rows(connection, self._type)
        stored_rows, stored = self._recorded.get("embeddings_rows"), self._recorded.get("embeddings_digest")
        if (stored_rows, stored) != (str(n_rows), digest):
            raise InputError(
                f"rows were changed outside the workflow (found {n_rows} with digest {digest[:8]}, "
                f"stored {stored_rows} with {str(stored)[:8]}): {self._rebuild}"
            )
        receipt = self._folder / "embeddings.json"
        with reading_file(receipt):
            received = read_json(receipt)
        if (received.get("n_embeddings"), received.get("digest")) != (n_rows, digest):
            raise InputError(f"{str(receipt)!r} belongs to another database: {delete_and_run(receipt)}")
        return f"{counted(n_rows, 'rows')} with digest {digest[:8]}, as stored"

    def check_outcomes(self) -> str:
        scan = scan_photos(self._config, str(self._folder), partial(read_last_plan, self._folder / "plan.tsv"))
        keep = self._config.missing_images == "keep"
        with reading(self._database) as connection:
            return check_outcomes(connection, self._type, self._folder, scan, keep=keep, rebuild=self._rebuild)

    def check_shards(self) -> str:
        return check_shards(self._folder, self._type, self._merged, self._n_rows)

    def check_provenance(self) -> str:
        recorded = self._recorded.get("encoder_digest")
        return check_provenance(recorded, self._encoder, self._folder, [*self._merged], self._rebuild)

    def check_map(self) -> str:
        if not self._config.reproject_umap_embeddings:
            raise _Skipped("reproject_umap_embeddings is false")
        if "map_digest" not in self._recorded:
            if (self._folder / "map_stored.json").exists():
                raise InputError("the database no longer records its map: run the workflow")
            raise _Skipped("no map yet: run the workflow")
        with reading(self._database) as connection:
            return check_map(connection, self._type, self._folder, self._rebuild)

    def check_files(self) -> str:
        with_map = self._config.reproject_umap_embeddings and "map_digest" in self._recorded
        return check_files(self._folder, {*self._merged}, with_map=with_map)

    def check_thumbnails(self) -> str:
        return check_thumbnails(self._folder, [*self._merged])

    def check_sample(self, n_images: int, n_threads: int, backends: Iterable[str]) -> str:
        max_pixels = int(self._config.max_megapixels * 1e6)
        sample = Sample(self._database, self._folder, self._encoder, max_pixels, backends)
        if summary := sample.check(min(n_images, self._n_rows), self._config.device, n_threads):
            return summary
        raise _Skipped("all sampled photos are missing or have changed")
