"""The plan: which shard each image belongs to, as pure functions of the shard lists and the scan.

A shard list is written once and never changed. It names images by identity: UUID, size and time. The owner of an image
is the newest shard that lists its current identity; images without an owner go into new shards. So a rerun changes only
new shards, whatever happened to the folder. An image that only moved keeps its owner, as paths are in the manifest and
not in the shard. Images that its job could not read (a missing photo, a failed disk) are in
a list of unread images next to the shard's database: the shard no longer owns them.

The plan of the last run remembers two things that the shard lists do not: the time of the last status change of each
image (ctime), and where missing images were last seen. An image with another ctime goes into a new shard too: its
contents may be new under the old size and time. If that plan is lost, this holds for every image.

On disk, below the state folder of the embedding type:

    shards/000001.tsv   UUID SIZE MTIME_NS                  one shard list
    embeddings/000001.unread.tsv  the same                  its unread images; mostly missing
    manifest.tsv        UUID PATH SIZE MTIME_NS SHARD       every image and its owner, by UUID
    rejected.tsv        PATH REASON                         every other file with an image's extension
    retired.tsv         SHARD                               shards that are no longer needed
    plan.tsv            UUID PATH SIZE MTIME_NS SHARD CTIME_NS REASON   the manifest of the current run, its rejected
                        files (without UUID), and its missing images (with a reason)
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..photos.names import canonical_uuid
from ..photos.scan import ImageFile, RejectedFile
from ..util.files import damaged, read_tsv, write_tsv

MANIFEST_COLUMNS = ("UUID", "PATH", "SIZE", "MTIME_NS", "SHARD")
REJECTED_COLUMNS = ("PATH", "REASON")
FAILED_COLUMNS = ("PATH", "REASON", "MESSAGE", "UUID")
PLAN_COLUMNS = (*MANIFEST_COLUMNS, "CTIME_NS", "REASON")
RETIRED_COLUMNS = ("SHARD",)
SHARD_COLUMNS = ("UUID", "SIZE", "MTIME_NS")

_FORMER_PLAN_COLUMNS = (*MANIFEST_COLUMNS, "REASON")  # until 0.1

Identity = tuple[str, int, int]  # UUID, size in bytes, mtime in nanoseconds
LastPlan = Mapping[str, Sequence[str]]  # rows of plan.tsv with PLAN_COLUMNS, by UUID

_NAME = "[0-9]" * 6  # of a shard; other files, such as copies, are not ours

# Reasons of missing images; others say why a row is held back.
MISSING, REMOVED = "missing", "removed"


class PlannedImage(NamedTuple):
    """An image and the shard that owns it."""

    uuid: str
    path: str
    size: int
    mtime_ns: int
    shard: str
    ctime_ns: int = 0

    @property
    def identity(self) -> Identity:
        """UUID, size and time: the image as a shard list names it."""
        return self.uuid, self.size, self.mtime_ns


class MissingImage(NamedTuple):
    """An image that earlier runs knew: where it was last seen, and what is known about it.

    The reason is `MISSING` if nobody looked for it, `REMOVED` if it is known to be removed, and otherwise why it may
    still exist.
    """

    uuid: str
    path: str
    reason: str
    last_seen: tuple[str, ...] = ("", "", "", "")  # size, mtime_ns, shard and ctime_ns then


@dataclass(frozen=True)
class Plan:
    """The next manifest, the rejected files, the new shards, and the missing images.

    Of the images in new shards, `n_reread` are only read again, because their status has changed, and `n_changed` are
    known by their UUID. `n_moved` images have another path than in the last plan. `may_miss_images` is False if the
    scan found every identity that the shards list.
    """

    images: list[PlannedImage]
    rejected: list[RejectedFile]
    new_shards: list[str]
    missing: list[MissingImage] = field(default_factory=list, compare=False)
    n_reread: int = field(default=0, compare=False)
    n_changed: int = field(default=0, compare=False)
    n_moved: int = field(default=0, compare=False)
    may_miss_images: bool = field(default=True, compare=False)

    def summary(self) -> str:
        """Count all photos, new photos and new shards, in one line."""
        new = set(self.new_shards)
        n_new = sum(image.shard in new for image in self.images) - self.n_reread - self.n_changed
        changed = f", changed: {self.n_changed}" if self.n_changed else ""
        moved = f"; moved or renamed: {self.n_moved}" if self.n_moved else ""
        missing = f"; missing: {len(self.missing)}" if self.missing else ""
        reread = ""
        if self.n_reread:
            reread = (
                f"; to be read again: {self.n_reread} (new or unknown status; embedded only if the content differs)"
            )
        return f"photos: {len(self.images)}, new: {n_new}{changed} (shards: {len(new)}){reread}{moved}{missing}"

    def strangers(self, shards: Mapping[str, Iterable[Identity]]) -> str:
        """Warn in one line if the scan found photos, but none that the shards know; empty otherwise."""
        if not self.images or any(image.shard in shards for image in self.images):
            return ""
        known = {uuid for rows in shards.values() for uuid, *_ in rows}
        if not known or any(image.uuid in known for image in self.images):
            return ""
        return (
            f"warning: none of the {len(known):,} photos of the last run is in input_dir; their rows are kept, and "
            "new photos are added. If these are two collections, give each its own output_embeddings_db"
        )

    def shard_sizes(self) -> Counter[str]:
        """Count the images that each shard owns."""
        return Counter(image.shard for image in self.images)

    def digest(self) -> str:
        """Compute the digest of the planned images and the rejected files: 16 hexadecimal digits."""
        return self.digests()[0]

    def digests(self) -> tuple[str, str]:
        """Compute the digests of the plan, and of the plan without its new shards and their images."""
        whole, listed, new = hashlib.sha256(), hashlib.sha256(), {*self.new_shards}
        for start in range(0, len(self.images), 1000):  # the lines of all would take much memory
            some = self.images[start : start + 1000]
            lines = [
                f"{uuid}\0{path}\0{size}\0{mtime}\0{shard}\0{ctime}\n" for uuid, path, size, mtime, shard, ctime in some
            ]
            whole.update(_bytes(lines))
            if new:
                listed.update(_bytes(line for line, image in zip(lines, some, strict=True) if image.shard not in new))
        rejected = _bytes(f"{path}\0{reason}\n" for path, reason in self.rejected)
        whole.update(rejected)
        listed.update(rejected)
        digest = whole.hexdigest()[:16]
        return digest, listed.hexdigest()[:16] if new else digest


def _bytes(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode("utf-8", "surrogateescape")


def make_plan(
    shards: dict[str, set[Identity]],
    images: list[ImageFile],
    rejected: list[RejectedFile],
    shard_size: int,
    *,
    recompute: bool = False,
    retry: frozenset[str] = frozenset(),
    last: LastPlan | None = None,
    unlisted: Iterable[str] = (),
) -> Plan:
    """Assign every image to a shard.

    Parameters
    ----------
    shards : dict
        The identities that each existing shard may own, by the shard's name of six digits.
    images : list of ImageFile
    rejected : list of RejectedFile
        Copied to the plan.
    shard_size : int
        Images per new shard, at least 1.
    recompute : bool
        Assign every image to a new shard.
    retry : frozenset of str
        UUIDs of images to assign to a new shard.
    last : mapping, optional
        The plan of the last run, empty if it is lost. Without it, every image counts as unchanged.
    unlisted : iterable of str
        Shards whose lists are lost, but not all of their files: a new shard of the same name and list takes these over,
        so it must not have that name if the contents of an image may be new.

    Returns
    -------
    Plan
        With its images in order of UUID.
    """
    owner: dict[Identity, str] = {}
    if not recompute:
        for shard in sorted(shards):  # the newest wins
            owner.update(dict.fromkeys(shards[shard], shard))
    planned: list[PlannedImage] = []
    new_shards: list[str] = []
    n_new, n_reread, is_taken = 0, 0, False
    others: set[str] = set()  # UUIDs of images in new shards that are not only read again
    newest = max(map(int, shards), default=0)
    last_unlisted = max(map(int, unlisted), default=0)
    for image in sorted(images):
        found = owner.pop((image.uuid, image.size, image.mtime_ns), None)
        is_listed, is_retried = found is not None, image.uuid in retry
        if found and last is not None and not is_retried and _may_have_new_contents(image, found, last):
            found, n_reread = None, n_reread + 1
        if found is None or is_retried:
            if n_new % shard_size == 0:
                new_shards.append(f"{newest + 1 + len(new_shards):06d}")
            shard = new_shards[-1]
            n_new += 1
            if not is_listed or is_retried or recompute:
                others.add(image.uuid)
            if not is_listed and last is not None:
                is_taken |= _may_have_new_contents(image, shard, last, is_listed=False)
        else:
            shard = found
        planned.append(PlannedImage(image.uuid, image.path, image.size, image.mtime_ns, shard, image.ctime_ns))
    if is_taken and last_unlisted > newest:
        names = {name: f"{int(name) + last_unlisted - newest:06d}" for name in new_shards}
        planned = [image._replace(shard=names.get(image.shard, image.shard)) for image in planned]
        new_shards = [*names.values()]
    listed = chain.from_iterable(shards.values()) if others else ()
    return Plan(
        planned,
        rejected,
        new_shards,
        n_reread=n_reread,
        n_changed=len({uuid for uuid, _, _ in listed if uuid in others}),
        may_miss_images=recompute or bool(owner),
    )


def may_change_plan(last: LastPlan, plan: Plan, unlisted: Collection[str]) -> bool:
    """Return whether a plan that was made without the last one could differ with it."""
    new = {*plan.new_shards}
    images = ((image, image.shard not in new) for image in plan.images)
    return any(
        _may_have_new_contents(image, image.shard, last, is_listed=is_listed)
        for image, is_listed in images
        if is_listed or unlisted
    )


def _may_have_new_contents(
    image: ImageFile | PlannedImage, shard: str, last: LastPlan, *, is_listed: bool = True
) -> bool:
    """Return whether an image may have changed since its shard read it, though size and time are the same.

    This is so if its status has changed, or if the last plan knew it otherwise: in another shard, which has another
    size or time, was never listed, or could not read it; or only under another spelling of its UUID. It is also so if
    the last plan is lost. An image that no shard lists is new if the last plan did not know it.
    """
    row = last.get(image.uuid)
    if row is None:
        return is_listed or not last
    _, _, _, _, its_shard, ctime_ns, _ = row
    return its_shard != shard or (ctime_ns != str(image.ctime_ns) and "0" not in (ctime_ns, str(image.ctime_ns)))


def find_missing(
    shards: Mapping[str, Iterable[Identity]],
    stored: Mapping[str, str],
    images: Iterable[ImageFile | PlannedImage],
    last: LastPlan,
    doubt: Callable[[str, str], str] | None,
) -> list[MissingImage]:
    """Find the images that the shards or the database know and the scan does not, and judge them.

    An image that exists under another spelling of its UUID is not missing.

    Parameters
    ----------
    shards : dict
        The identities that each existing shard may own.
    stored : mapping
        Where each image with a row in the database was last seen, by UUID; empty if unknown.
    images : iterable of ImageFile or PlannedImage
    last : mapping
        The plan of the last run.
    doubt : function or None
        From the UUID and the last path of an image to why it may still exist; None judges none.

    Returns
    -------
    list of MissingImage
        In order of UUID.
    """
    uuids = {uuid for rows in shards.values() for uuid, _, _ in rows} | stored.keys()
    uuids.difference_update(map(itemgetter(0), images))
    if not uuids:
        return []
    found = {canonical_uuid(image.uuid) for image in images}
    missing = []
    for uuid in sorted(uuid for uuid in uuids if canonical_uuid(uuid) not in found):
        row = last.get(uuid, ("",) * len(PLAN_COLUMNS))
        path, reason = row[1] or stored.get(uuid, ""), MISSING
        if doubt is not None:
            was_removed = row[-1] == REMOVED and uuid not in stored
            reason = REMOVED if was_removed else doubt(uuid, path) or REMOVED
        missing.append(MissingImage(uuid, path, reason, tuple(row[2:-1])))
    return missing


def read_shard_lists(folder: str | Path) -> dict[str, set[Identity]]:
    """Read the identities that each shard below a state folder may own; empty if the folder is missing."""
    shards = {path.stem: set(read_shard_list(path)) for path in shard_lists(f"{folder}/shards")}
    for path in Path(folder, "embeddings").glob(f"{_NAME}.unread.tsv"):
        shards.get(path.name.split(".")[0], set()).difference_update(read_shard_list(path))
    return shards


def shards_at_work(plan: Plan, shards: Iterable[str], folder: str | Path) -> list[str]:
    """Return the shards that a run creates or uses, the oldest first.

    A shard that owns no image is still used if its database exists, as this may hold rows of missing photos, unless the
    last merge retired it.
    """
    owners = {image.shard for image in plan.images}
    retired = read_retired(folder)
    others = {shard for shard in shards if Path(folder, "embeddings", f"{shard}.sqlite").exists()}
    return sorted(owners | (others - retired))


def read_retired(folder: str | Path) -> set[str]:
    """Read the shards that the last merge no longer needed."""
    path = Path(folder, "retired.tsv")
    return {shard for (shard,) in read_tsv(path, RETIRED_COLUMNS)} if path.exists() else set()


def shard_lists(folder: str | Path) -> list[Path]:
    """Find all shard lists in a folder, the oldest first."""
    return sorted(Path(folder).glob(f"{_NAME}.tsv"))


def shard_databases(folder: str | Path) -> list[Path]:
    """Find all shard databases below a state folder, the oldest first; folders and broken links are none."""
    return sorted(path for path in Path(folder, "embeddings").glob(f"{_NAME}.sqlite") if path.is_file())


def unlisted_shards(folder: str | Path, shards: Iterable[str]) -> set[str]:
    """Find all shards below a state folder that have a database or a journal, but no list."""
    files = Path(folder, "embeddings").glob("*")
    return {name[1] for file in files if (name := re.match(rf"\.?({_NAME})\.", file.name))} - {*shards}


def remove_shard(folder: str | Path, shard: str) -> None:
    """Remove all files of a shard, its list last: a later shard of this name must not find its database."""
    for name in (f"embeddings/{shard}.sqlite", f"embeddings/{shard}.unread.tsv", f"shards/{shard}.tsv"):
        Path(folder, name).unlink(missing_ok=True)


def read_shard_list(path: str | Path) -> list[Identity]:
    """Read one shard list.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        return [(uuid, int(size), int(mtime_ns)) for uuid, size, mtime_ns in read_tsv(path, SHARD_COLUMNS)]
    except (ValueError, OSError):  # a broken link, for example
        raise damaged(path) from None


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write the plan for the jobs of this run, and for the plan of the next one."""
    rejected = (("", file.path, "", "", "", "", file.reason) for file in plan.rejected)
    missing = ((image.uuid, image.path, *image.last_seen, image.reason) for image in plan.missing)
    write_tsv(path, PLAN_COLUMNS, [*((*image, "") for image in plan.images), *rejected, *missing])


def read_plan(path: str | Path, shard: str | None = None) -> tuple[list[PlannedImage], list[RejectedFile]]:
    """Read the images and rejected files of the plan, or only the images that one shard owns."""
    images, rejected = [], []
    for uuid, image_path, size, mtime_ns, owner, ctime_ns, reason in read_tsv(path, PLAN_COLUMNS):
        if reason and not uuid:
            rejected.append(RejectedFile(image_path, reason))
        elif not reason and (shard is None or owner == shard):
            numbers = [size, mtime_ns, ctime_ns]
            if not all(number.lstrip("-").isdecimal() for number in numbers):
                raise damaged(path)
            images.append(PlannedImage(uuid, image_path, int(size), int(mtime_ns), owner, int(ctime_ns)))
    return images, rejected


def read_removed(path: str | Path) -> set[str]:
    """Read the UUIDs of the missing images that the plan knows to be removed."""
    return {uuid for uuid, reason in _read_missing(path) if reason == REMOVED}


def read_held_back(path: str | Path) -> set[str]:
    """Read the UUIDs of the missing images that may still exist, so that `missing_images: delete` keeps their rows."""
    return {uuid for uuid, reason in _read_missing(path) if reason not in (MISSING, REMOVED)}


def missing_from(path: str | Path, uuids: Iterable[str]) -> set[str]:
    """Return those of some photos of which the plan has no image, and which it does not know to be removed."""
    missing = {*uuids}
    for uuid, *_, reason in read_tsv(path, PLAN_COLUMNS):
        if reason in ("", REMOVED):
            missing.discard(uuid)
    return missing


def _read_missing(path: str | Path) -> Iterator[tuple[str, str]]:
    return ((uuid, reason) for uuid, *_, reason in read_tsv(path, PLAN_COLUMNS) if uuid and reason)


def read_last_plan(path: str | Path) -> LastPlan:
    """Read the images and missing images of the last run's plan; none if the file is missing.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if not os.path.exists(path):
        return {}
    try:
        return {row[0]: row for row in read_tsv(path, PLAN_COLUMNS) if row[0]}
    except InputError:
        former = read_tsv(path, _FORMER_PLAN_COLUMNS)
        return {row[0]: [*row[:-1], "0", row[-1]] for row in former if row[0]}


def write_manifest(plan_path: str, manifest_path: str, rejected_path: str, shards_folder: str) -> Plan:
    """Turn the plan of this run into shard lists and the manifest: the new lists first, the manifest last.

    An existing shard list is never overwritten.

    Returns
    -------
    Plan
        The written plan.
    """
    images, rejected = read_plan(plan_path)
    folder = Path(shards_folder)
    lists: dict[str, list[Identity]] = {}
    for image in images:
        lists.setdefault(image.shard, []).append(image.identity)
    new_shards = sorted(shard for shard in lists if not (folder / f"{shard}.tsv").exists())
    for shard in new_shards:
        write_tsv(folder / f"{shard}.tsv", SHARD_COLUMNS, lists[shard])
    write_tsv(rejected_path, REJECTED_COLUMNS, rejected)
    write_tsv(manifest_path, MANIFEST_COLUMNS, (image[: len(MANIFEST_COLUMNS)] for image in images))
    return Plan(images, rejected, new_shards)
