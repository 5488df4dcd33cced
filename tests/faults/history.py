"""Random histories of a collection: changes, faults, runs. After each run, the database equals that of a fresh run.

One seed determines everything. A run is judged from outside: by the folder of photos, by the files on the disk before
and after, and by the images that the encoder received.
"""

import hashlib
import io
import json
import os
import random
import re
import shutil
import sqlite3
import uuid
from collections import Counter
from functools import cache
from pathlib import Path

import counting_encoder
import numpy as np
import yaml
from PIL import Image

from crossfilter_inference.db.embeddings import pack_embedding
from crossfilter_inference.db.tables import Tables
from crossfilter_inference.encoders.identity import provenance_digest
from crossfilter_inference.encoders.registry import resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.facts import _sidecars_in, complete_facts
from crossfilter_inference.photos.image import ImageError, load_image
from crossfilter_inference.shards.journal import _frames
from crossfilter_inference.shards.plan import read_shard_list
from crossfilter_inference.shards.shard import read_shard, read_shard_provenance
from crossfilter_inference.util.files import digest

TYPE = "COUNT"
BATCH_SIZE = 2
TRASH = (".picasaoriginals", "#recycle")  # some of those that are excluded by default
FOLDERS = ("", "album", "elsewhere", 'qu"ote\n', ".hidden", *TRASH)
SIDECARS = (".json", ".xmp")
FILE_COLUMNS = ("UUID", "SIZE", "MTIME_NS", "DIGEST")
UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)


class Violation(AssertionError):
    """A history that broke a promise of the workflow."""


@cache
def photo(number: int) -> bytes:
    """Make a small photo, different for each number."""
    pixels = np.random.default_rng(number).integers(1, 255, (5, 7, 3), np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).resize((28, 20)).save(jpeg, "JPEG", quality=60 + number % 30, progressive=number % 3 == 0)
    return jpeg.getvalue()


FACTS = Tables("T").facts


@cache
def reference(data: bytes, model: str) -> dict:
    """Embed one file's bytes on their own: the row of its photo, or its failure."""
    try:
        loaded = load_image(data, counting_encoder.PREPROCESSING)
    except ImageError as error:
        return {"REASON": error.reason, "MESSAGE": str(error)}
    [embedding] = counting_encoder.embed(loaded.pixels[None], model)
    return {
        "EMBEDDING": pack_embedding(embedding),
        "DIGEST": hashlib.sha256(data).hexdigest(),
        **{name: loaded.facts.get(name.lower()) for name in FACTS},
        "pixels": counting_encoder.pixels_digest(loaded.pixels),
    }


class History:
    """A collection in a folder, and its events.

    Parameters
    ----------
    folder : Path
        Empty or missing.
    seed : int
    """

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random = folder, random.Random(seed)
        self.photos, self.disk = folder / "photos", folder / "disk"
        self.database = folder / "results" / "photos.sqlite"
        self.state = folder / "results" / "photos" / TYPE
        self.encoded = folder / "encoded"
        self.photos.mkdir(parents=True)
        self.disk.mkdir()
        self.encoded.touch()
        os.environ["COUNTING_ENCODER_FILE"] = str(self.encoded)
        self.settings = {
            "input_dir": [str(self.photos), str(self.disk)],
            "output_embeddings_db": str(self.database),
            "embedding_type": TYPE,
            "encoders": {TYPE: {"backend": counting_encoder.__file__, "model": "a"}},
            "batch_size": BATCH_SIZE,
            "shard_size": self.random.randint(1, 6),
            "reproject_umap_embeddings": False,
            "max_failed_share": 1,
            "max_deleted_share": 1,
        }
        self.any_name = seed % 2 == 1
        if self.any_name:
            self.settings["names"] = "any"
        self.with_sidecars = seed % 4 in (1, 2)
        self.assigned: dict[str, str] = {}  # the UUIDs of the last run, by path
        self.known: dict[int, tuple[str, str, int, int]] = {}  # UUID, path, size and time in the last run, by inode
        self.former: dict[str, set[tuple]] = {}  # path, size and time of every run, by UUID
        self.log: list[str] = []
        self.n_photos = 0
        self.ever: dict[str, set[bytes]] = {}  # the rows that a UUID ever had, by its one spelling
        # Provenance and digests of shards that were read, by the status of the file.
        self.read: dict[tuple[int, ...], tuple[dict[str, str], dict[tuple, str]]] = {}
        self.old_versions: list[tuple[str, bytes, int]] = []
        self.is_damaged = self.has_lost = False
        self.knows_names = True  # neither the last plan nor the database is lost
        self.unnoticed: set[int] = set()  # files with new contents that only their status tells, by inode
        self.last_seen: dict[str, Path] = {}
        self.stored: set[str] = set()  # UUIDs of the rows after the last run
        self.model_before = self.model
        for _ in range(self.random.randint(2, 8)):
            self.add()

    # ---- events of photos -------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The settings that determine the encoder's numbers."""
        return self.settings["encoders"][TYPE]["model"]

    def files(self) -> list[Path]:
        """Find all photos, by path."""
        return sorted(path for root in self.roots() for path in root.rglob("*") if path.is_file())

    def roots(self) -> list[Path]:
        """Return the folders of `input_dir` that exist."""
        return [root for root in (self.photos, self.disk) if root.exists()]

    def write(self, path: Path, data: bytes) -> None:
        """Write a photo with its own timestamp."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.touch(path)

    def touch(self, path: Path | None = None) -> None:
        """Give a photo a new timestamp."""
        path = path or self.random.choice(self.files())
        self.n_photos += 1
        when = 1_600_000_000_000_000_000 + self.n_photos * 1_000_000
        os.utime(path, ns=(when, when))

    def add(self) -> None:
        """Add photos: good ones, copies of others, broken ones, and files that are no photos."""
        for _ in range(self.random.randint(1, 4)):
            self.n_photos += 1
            data = photo(self.random.randrange(60))
            kind = self.random.randrange(10)
            if kind == 0:
                data = data[: len(data) // 2]
            elif kind == 1:
                data = b"no photo %d" % self.n_photos
            elif kind == 2:
                data = b""
            name = str(uuid.UUID(int=self.random.getrandbits(128)))
            if kind == 3:
                name = "holiday"
            elif self.any_name and self.random.random() < 0.7:
                name = self.random.choice(["IMG {}", "IMG_20210506_0708{:02}"]).format(self.random.randrange(6))
            folder = self.random.choice([self.photos, self.photos / "album", *self.roots()])
            self.write(folder / f"{name}.{self.random.choice(['jpg', 'JPEG'])}", data)

    def change(self) -> None:
        """Replace the content of a file."""
        path = self.random.choice(self.files())
        self.old_versions.append((str(path), path.read_bytes(), path.stat().st_mtime_ns))
        self.write(path, photo(self.random.randrange(60, 120)) if self.random.random() < 0.8 else b"broken")

    def restore(self) -> None:
        """Restore an old version, with its old timestamp."""
        if self.old_versions:
            path, data, mtime_ns = self.random.choice(self.old_versions)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if Path(path).is_symlink():
                Path(path).unlink()
            Path(path).write_bytes(data)
            os.utime(path, ns=(mtime_ns, mtime_ns))
            self.unnoticed.add(os.stat(path).st_ino)

    def move(self) -> None:
        """Move a photo, or rename a folder."""
        path = self.random.choice(self.files())
        target = self.random.choice(self.roots()) / self.random.choice(FOLDERS) / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)

    def respell(self) -> None:
        """Rename a photo to another spelling of its UUID."""
        path = self.random.choice(self.files())
        stem = self.random.choice([path.stem.upper(), path.stem.lower(), path.stem.replace("-", "")])
        path.rename(path.with_name(f"{stem}{path.suffix}"))

    def delete(self) -> None:
        """Delete some photos, but never all."""
        for path in self.random.sample(self.files(), min(3, len(self.files()) // 3)):
            self.old_versions.append((str(path), path.read_bytes(), path.stat().st_mtime_ns))
            path.unlink()
        if not self.expected():
            self.add()

    def write_sidecar(self) -> None:
        """Write a sidecar of a photo."""
        path = self.random.choice(self.files())
        seconds = self.random.randrange(10**9)
        record = {"photoTakenTime": {"timestamp": str(seconds)}, "geoData": {"latitude": seconds % 90, "longitude": 1}}
        name, data = f"{path.name}.json", json.dumps(record)
        if self.random.random() < 0.3:
            name, data = f"{path.stem}.xmp", f'<x xmlns:e="e" e:DateTimeOriginal="2020-01-02T03:04:{seconds % 60:02}"/>'
        self.write(path.with_name(name), data.encode())

    def remove_sidecar(self) -> None:
        """Remove a sidecar."""
        if sidecars := [path for path in self.files() if path.suffix in SIDECARS]:
            self.random.choice(sidecars).unlink()

    def touch_all(self) -> None:
        """Copy the collection: every file gets a new timestamp."""
        for path in self.files():
            self.touch(path)

    # ---- events that hide photos, or their contents -----------------------------------------------------

    def rewrite_silently(self) -> None:
        """Replace the content of a file under its size and timestamp, as tag editors do."""
        path = self.random.choice(self.files())
        status = path.stat()
        self.old_versions.append((str(path), path.read_bytes(), status.st_mtime_ns))
        data = photo(self.random.randrange(60, 120))[: status.st_size]
        path.write_bytes(data + bytes(status.st_size - len(data)))
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
        self.unnoticed.add(status.st_ino)

    def change_modes(self) -> None:
        """Change the permissions of all files, and so their status, but not their contents."""
        for path in self.files():
            path.chmod(self.random.choice([0o600, 0o640, 0o644]))

    def copy_to_trash(self) -> None:
        """Copy a photo to the trash of another program."""
        path = self.random.choice(self.files())
        self.write(self.photos / self.random.choice(TRASH) / path.name, path.read_bytes())

    def empty(self) -> None:
        """Truncate a photo to nothing, as a full disk does."""
        path = self.random.choice(self.files())
        self.old_versions.append((str(path), path.read_bytes(), path.stat().st_mtime_ns))
        path.write_bytes(b"")

    def break_link(self) -> None:
        """Replace a photo by a link to a missing file."""
        path = self.random.choice(self.files())
        self.old_versions.append((str(path), path.read_bytes(), path.stat().st_mtime_ns))
        path.unlink()
        path.symlink_to("nowhere")

    def lock(self) -> None:
        """Make a folder or a photo unreadable; runs have no privilege of root."""
        if os.geteuid() == 0:
            folders = [path for root in self.roots() for path in root.rglob("*") if path.is_dir()]
            photos = [path for path in self.files() if path.suffix not in SIDECARS]
            self.random.choice([*folders, *photos]).chmod(0)

    def unlock(self) -> None:
        """Make everything readable."""
        for root in self.roots():
            for path in root.rglob("*"):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() else 0o644)

    def unmount(self) -> None:
        """Take away the folder `disk` or an album, and leave an empty folder or none."""
        folder = self.random.choice([self.disk, self.photos / "album"])
        away = self.folder / f"{folder.name}.away"
        if folder.exists() and not away.exists():
            folder.rename(away)
            if self.random.random() < 0.7:
                folder.mkdir()

    def remount(self) -> None:
        """Bring them back."""
        for folder in (self.disk, self.photos / "album"):
            away = self.folder / f"{folder.name}.away"
            if away.exists():
                if folder.exists():
                    shutil.rmtree(folder)
                away.rename(folder)

    # ---- events of settings and state -------------------------------------------------------------------

    def configure(self) -> None:
        """Change a setting."""
        match self.random.randrange(6):
            case 0:
                self.settings["shard_size"] = self.random.randint(1, 6)
            case 1:
                self.settings["missing_images"] = self.random.choice(["keep", "delete"])
            case 2:
                self.settings["retry_failures"] = self.random.random() < 0.5
            case 3:
                self.settings["recompute_existing_embeddings"] = self.random.random() < 0.3
            # else rows of missing photos refuse it; before a run, only names that are UUIDs tell which are missing
            case 4 if self.settings.get("missing_images") == "delete" and not self.any_name and not self.in_doubt():
                self.settings["encoders"][TYPE]["model"] = self.random.choice(["a", "another"])
            case _:
                self.settings["batch_size"] = self.random.choice([BATCH_SIZE, 1])

    def state_files(self) -> list[Path]:
        """Find the database and all files of the state, the database first."""
        found = sorted(p for p in self.state.rglob("*") if p.is_file() and not {"logs", "benchmarks"} & {*p.parts})
        return [self.database] * self.database.exists() + found

    def lose(self) -> None:
        """Lose a file of the state, or Snakemake's records."""
        files = self.state_files()
        if files and self.random.random() < 0.9:
            path = self.random.choice([*files, *files[:1] * 3])
            self.log.append(f"lost {path.name}")
            self.has_lost = True
            self.knows_names &= path not in (self.database, self.state / "plan.tsv")
            path.unlink()
            Path(f"{path}-journal").unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder / ".snakemake", ignore_errors=True)

    def damage(self) -> None:
        """Damage a file of the state: cut off, overwritten in the middle, emptied."""
        files = [path for path in self.state_files() if path.stat().st_size]
        if not files:
            return
        path = self.random.choice([*files, *files[:1] * 3])
        size, keep = path.stat().st_size, path.stat()
        with path.open("r+b") as file:
            match self.random.randrange(3):
                case 0:
                    file.truncate(self.random.randrange(size))
                case 1:
                    file.seek(self.random.randrange(size))
                    file.write(self.random.randbytes(min(size, 200)))
                case 2:
                    file.truncate(0)
        if self.random.random() < 0.5:
            os.utime(path, ns=(keep.st_mtime_ns, keep.st_mtime_ns))
        self.log.append(f"damaged {path.name}")
        self.is_damaged = True

    def touch_unnoticed(self) -> None:
        """Touch what no run can notice, because the last plan and the database are lost."""
        if not (self.database.exists() or (self.state / "plan.tsv").exists()):
            for path in self.files():
                is_unnoticed = self.with_sidecars or path.stat().st_ino in self.unnoticed
                if is_unnoticed and path.stat().st_mode & 0o200:
                    self.touch(path)

    def set_clock_back(self) -> None:
        """Date all files into the future."""
        for path in self.state_files():
            when = path.stat().st_mtime + 100_000
            os.utime(path, (when, when))

    def happen(self) -> None:
        """Apply some random events between two runs."""
        changes = [self.add] * 4 + [self.change] * 3 + [self.touch, self.restore, self.move, self.respell] * 2
        changes += [self.rewrite_silently, self.change_modes, self.copy_to_trash, self.empty, self.break_link]
        changes += [self.lock, self.unlock, self.unmount, self.remount, self.rewrite_silently]
        changes += [self.delete] * 2 + [self.touch_all, self.configure, self.configure, self.lose, self.lose]
        changes += [self.damage, self.set_clock_back]
        if self.with_sidecars:
            changes += [self.write_sidecar] * 3 + [self.remove_sidecar]
        for change in self.random.choices(changes, k=self.random.randrange(4)):
            if change not in (self.restore, self.configure) and not self.files():
                change = self.add
            self.log.append(change.__name__)
            change()
        if not self.expected():
            self.add()
            self.write(self.photos / f"{uuid.UUID(int=self.random.getrandbits(128))}.jpg", photo(1))
        if self.in_doubt():
            self.settings["encoders"][TYPE]["model"] = self.model_before
        self.model_before = self.model
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.settings))

    # ---- expectations -----------------------------------------------------------------------------------------

    def expected(self) -> dict[str, dict]:
        """Return the rows that the database must hold for the existing photos, by UUID."""
        found: dict[str, Path] = {}
        for path in sorted(self.files(), key=lambda path: (".hidden" in path.parts, os.fsencode(path))):
            is_photo = (self.any_name or UUID.fullmatch(path.stem)) and path.suffix.lower() in (".jpg", ".jpeg")
            if is_photo and path.stat().st_size and not self._is_trash(path) and not self._is_locked(path):
                found.setdefault(spelling(self.uuid_of(path)), path)
        rows = {}
        _sidecars_in.cache_clear()  # several changes of a folder can have one timestamp
        for path in found.values():
            status = path.stat()
            identity = {"file": path, "PATH": str(path), "SIZE": status.st_size, "MTIME_NS": status.st_mtime_ns}
            row = {**reference(path.read_bytes(), self.model), **identity}
            if "REASON" not in row:
                facts = {name.lower(): value for name, value in row.items()}
                row |= {name.upper(): value for name, value in complete_facts(facts, str(path)).items()}
            rows[self.uuid_of(path)] = row
        return rows

    def uuid_of(self, path: Path) -> str:
        """Return the UUID that the name of a photo is, or else the one that it was given; its path before that."""
        return path.stem if UUID.fullmatch(path.stem) else self.assigned.get(str(path), str(path))

    def _is_trash(self, path: Path) -> bool:
        return bool({*TRASH} & {*path.parts})

    def _is_locked(self, path: Path) -> bool:
        return any(not each.stat().st_mode & 0o777 for each in (path, *path.parents) if self.folder in each.parents)

    def in_doubt(self) -> set[str]:
        """Return the stored photos that a run does not see, but that may still exist."""
        there = {spelling(uuid_) for uuid_ in self.expected()}
        return {uuid_ for uuid_ in self.stored if spelling(uuid_) not in there and self.may_exist(uuid_)}

    def may_exist(self, uuid_: str) -> bool:
        """Judge whether a photo that a run does not see may still exist."""
        path = self.last_seen[uuid_]
        for root in self.roots():
            for other in root.rglob("*"):
                is_seen = not self._is_trash(other) and not any(map(self._is_locked, other.parents))
                if is_seen and spelling(other.stem) == spelling(uuid_) and other.suffix.lower() in (".jpg", ".jpeg"):
                    return True
                if (
                    other.is_file()
                    and self._is_locked(other)
                    and self.known.get(os.lstat(other).st_ino, ("",))[0] == uuid_
                ):
                    return True
        if os.path.lexists(path):
            return True
        folder = next(parent for parent in path.parents if parent.exists())
        if self._is_locked(folder):
            return True
        return all(name.startswith(".") or name in TRASH for name in os.listdir(folder))

    def look(self) -> dict:
        """Read the rows on the disk that need not be recomputed, and the number of images encoded so far."""
        lists = {path.stem for path in self.state.glob("shards/*.tsv")}
        there = {"lists": lists, "database": set(), "shards": {}, "encoded": Counter(self.encoded.read_text().split())}
        encoder = provenance_digest(resolve_encoder(TYPE, self.settings["encoders"][TYPE]))
        copy = self.folder / "look.sqlite"
        for suffix in ("", "-journal"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
            if Path(f"{self.database}{suffix}").exists():
                shutil.copy(f"{self.database}{suffix}", f"{copy}{suffix}")
        try:
            connection = sqlite3.connect(copy)
            recorded = dict(connection.execute(f"SELECT KEY, VALUE FROM {TYPE}_PROVENANCE"))
            if recorded.get("encoder_digest") == encoder:
                rows = connection.execute(f"SELECT DIGEST FROM {TYPE}_IMAGES JOIN {TYPE}_EMBEDDINGS USING (UUID)")
                there["database"] = {row[0] for row in rows}
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # damaged
            pass
        finally:
            connection.close()
        # Rows of a shard are valid only for the same list: the name of a lost list is assigned again.
        for path in self.state.glob("embeddings/[0-9]*.sqlite"):
            try:
                provenance, finished = self._read_shard(path)
            except (InputError, OSError):
                continue
            if provenance["encoder_digest"] == encoder:
                there["shards"].setdefault((path.stem, provenance["shard_list"]), {}).update(finished)
        for path in self.state.glob("embeddings/.*.rows"):
            head, *frames = _frames(path) if path.stat().st_size else [{}]
            if head.get("encoder") == encoder:
                values = ([frame["row"][name] for name in FILE_COLUMNS] for frame in frames)
                finished = {tuple(identity): digest for *identity, digest in values}
                there["shards"].setdefault((path.name.split(".")[1], head["list"]), {}).update(finished)
        return there

    def _read_shard(self, path: Path) -> tuple[dict[str, str], dict[tuple, str]]:
        """Read the provenance of a shard and the digests of its photos, unless the same file was read before."""
        status = path.stat()
        key = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if key not in self.read:
            provenance = read_shard_provenance(path, TYPE)
            images = [rows.images for rows, _ in read_shard(path, TYPE) if rows]
            values = (zip(*(part[name] for name in FILE_COLUMNS), strict=True) for part in images)
            self.read[key] = provenance, {tuple(identity): digest for part in values for *identity, digest in part}
        return self.read[key]

    def check_killed(self, before: dict) -> None:
        """Check that an interrupted run has lost no more than the batch in progress."""
        after = self.look()
        saved = {digest for rows in after["shards"].values() for digest in rows.values()} | after["database"]
        pixels = {
            reference(path.read_bytes(), self.model).get("pixels") for path in self.files() if _digest(path) in saved
        }
        computed = after["encoded"] - before["encoded"]
        lost = sum(n for image, n in computed.items() if image not in pixels)
        self.must(lost <= BATCH_SIZE, f"{lost} images were computed and are lost, of {computed.total()}")

    def check(self, before: dict) -> None:
        """Check a successful run."""
        self.check_names()
        expected, rows = self.expected(), self.rows()
        failures = {uuid: row for uuid, row in expected.items() if "REASON" in row}
        good = {uuid: row for uuid, row in expected.items() if "REASON" not in row}
        self.must(
            self.failures() == {u: (r["PATH"], r["REASON"], r["MESSAGE"]) for u, r in failures.items()}, "failures"
        )
        names = ("EMBEDDING", "PATH", "SIZE", "MTIME_NS", "DIGEST", *FACTS)
        for uuid_, row in good.items():
            self.must(uuid_ in rows, f"{uuid_} is missing")
            for name in names:
                self.must(
                    rows[uuid_][name] == row[name], f"{uuid_}: {name} is {rows[uuid_][name]!r}, not {row[name]!r}"
                )
            self.ever.setdefault(spelling(uuid_), set()).add(row["EMBEDDING"])
        there = {spelling(uuid_) for uuid_ in expected}
        deletes, knows_all = self.settings.get("missing_images") == "delete", not (self.has_lost or self.is_damaged)
        for uuid_ in self.stored - rows.keys() if knows_all else ():
            is_known = spelling(uuid_) in there or uuid_ in failures or not self.may_exist(uuid_)
            self.must(is_known and (deletes or spelling(uuid_) in there), f"{uuid_} may exist, but its row is deleted")
        for uuid_ in rows.keys() - good.keys():
            is_kept = not deletes or not knows_all or self.may_exist(uuid_)
            self.must(is_kept, f"{uuid_} is missing, but its row is kept")
            self.must(spelling(uuid_) not in there, f"{uuid_} exists in another spelling")
            self.must(rows[uuid_]["EMBEDDING"] in self.ever[spelling(uuid_)], f"{uuid_} never had this row")
        manifest = {uuid_: shard for uuid_, _, shard in self.manifest()}
        self.must(manifest.keys() == expected.keys(), "the manifest has other photos")
        self.check_computed(before, good, manifest)
        self.unnoticed.clear()
        leftovers = [path.name for path in self.state.rglob(".*") if path.is_file() and path.name != ".lock"]
        self.must(not leftovers, f"left over: {leftovers}")
        self.is_damaged = self.has_lost = False
        self.last_seen |= {uuid_: row["file"] for uuid_, row in expected.items()}
        self.stored = {*rows}

    def check_names(self) -> None:
        """Check that each photo has one UUID, and kept it unless its path, time and size have all changed."""
        planned = self.manifest()
        self.assigned = {path: uuid_ for uuid_, path, _ in planned if not UUID.fullmatch(Path(path).stem)}
        self.must(len({spelling(uuid_) for uuid_, _, _ in planned}) == len(planned), "two photos have one UUID")
        now, path_of = {}, {uuid_: path for uuid_, path, _ in planned}
        for path, uuid_ in self.assigned.items():
            status = os.stat(path)
            now[status.st_ino] = uuid_, path, status.st_size, status.st_mtime_ns
        if self.knows_names and not self.is_damaged:
            for inode in now.keys() & self.known.keys():
                (uuid_, path, *identity), (old_uuid, old_path, *old_identity) = now[inode], self.known[inode]
                holder = path_of.get(old_uuid, "")
                is_swapped = holder == old_path or (
                    holder
                    and (
                        [os.stat(holder).st_size, os.stat(holder).st_mtime_ns] == old_identity
                        or UUID.fullmatch(Path(holder).stem)  # the photo of this name is back
                    )
                )
                has_returned = (path, *identity) in self.former.get(uuid_, ())
                if path == old_path or identity == old_identity:
                    is_right = uuid_ == old_uuid or is_swapped or has_returned
                    self.must(is_right, f"{path} was {old_uuid}, and is now {uuid_}")
        self.known, self.knows_names = now, True
        for uuid_, *seen in now.values():
            self.former.setdefault(uuid_, set()).add(tuple(seen))

    def check_computed(self, before: dict, good: dict[str, dict], manifest: dict[str, str]) -> None:
        """Check that exactly the images without a row on the disk were computed."""
        wanted: Counter[str] = Counter()
        # Shards without their list are used if nothing has to be read again, and other shards that listed an image.
        unsure: Counter[str] = Counter()
        former = {row for finished in before["shards"].values() for row in finished.items()}
        lists = {path.stem: digest(read_shard_list(path)) for path in self.state.glob("shards/*.tsv")}
        for uuid_, row in good.items():
            finished = before["shards"].get((manifest[uuid_], lists[manifest[uuid_]]), {})
            identity = uuid_, row["SIZE"], row["MTIME_NS"]
            is_finished = finished.get(identity) == row["DIGEST"]
            is_known = row["DIGEST"] in before["database"] and not self.settings.get("recompute_existing_embeddings")
            if not (is_finished or is_known) and (identity, row["DIGEST"]) in former:
                unsure[row["pixels"]] += 1
            elif not (is_finished or is_known):
                wanted[row["pixels"]] += 1
            elif not is_known and manifest[uuid_] not in before["lists"]:
                unsure[row["pixels"]] += 1
        computed = self.look()["encoded"] - before["encoded"]
        if self.is_damaged:
            return
        needless = computed - wanted - unsure
        self.must(not needless, f"{needless.total()} images were computed needlessly")
        self.must(wanted <= computed, f"{(wanted - computed).total()} images come from nowhere")

    def rows(self) -> dict[str, dict]:
        """Read every embedding, with the record of its image."""
        connection = sqlite3.connect(self.database)
        connection.row_factory = sqlite3.Row
        try:
            query = f"SELECT * FROM {TYPE}_EMBEDDINGS LEFT JOIN {TYPE}_IMAGES USING (UUID)"
            return {row["UUID"]: dict(row) for row in connection.execute(query)}
        finally:
            connection.close()

    def failures(self) -> dict[str, tuple]:
        """Read every failure."""
        connection = sqlite3.connect(self.database)
        try:
            rows = connection.execute(f"SELECT UUID, PATH, REASON, MESSAGE FROM {TYPE}_FAILURES")
            return {uuid_: tuple(row) for uuid_, *row in rows}
        finally:
            connection.close()

    def manifest(self) -> list[tuple[str, str, str]]:
        """Read UUID, path and shard of every photo."""
        from crossfilter_inference.shards.plan import MANIFEST_COLUMNS
        from crossfilter_inference.util.files import read_tsv

        return [(row[0], row[1], row[4]) for row in read_tsv(self.state / "manifest.tsv", MANIFEST_COLUMNS)]

    def must(self, is_so: bool, what: str) -> None:
        """Raise a Violation if a condition is false."""
        if not is_so:
            raise Violation(what)


def spelling(uuid_: str) -> str:
    """Return the one spelling of a UUID."""
    return uuid_.replace("-", "").lower()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
