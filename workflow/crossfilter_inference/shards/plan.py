"""The plan: which shard each image belongs to, as pure functions of the shard lists and the scan.

A shard list is written once and never changed. It names images by identity: UUID, size and time. The owner of an image
is the newest shard that lists its current identity; images without an owner go into new shards. So a rerun changes only
new shards, whatever happened to the folder. An image that only moved keeps its owner, as paths are in the manifest and
not in the shard. Images that its job could not read (a missing photo, a failed disk) are in
a list of unread images next to the shard's database: the shard no longer owns them.

On disk, below the state folder of the embedding type:

    shards/000001.tsv   UUID SIZE MTIME_NS                  one shard list
    embeddings/000001.unread.tsv  the same                  its unread images; mostly missing
    manifest.tsv        UUID PATH SIZE MTIME_NS SHARD       every image and its owner, by UUID
    rejected.tsv        PATH REASON                         every other file with an image's extension
    retired.tsv         SHARD                               shards that are no longer needed
    plan.tsv            UUID PATH SIZE MTIME_NS SHARD REASON   manifest and rejected files of the current run
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..photos.scan import ImageFile, RejectedFile
from ..util.files import damaged, read_tsv, write_tsv

MANIFEST_COLUMNS = ("UUID", "PATH", "SIZE", "MTIME_NS", "SHARD")
REJECTED_COLUMNS = ("PATH", "REASON")
PLAN_COLUMNS = (*MANIFEST_COLUMNS, "REASON")
RETIRED_COLUMNS = ("SHARD",)
SHARD_COLUMNS = ("UUID", "SIZE", "MTIME_NS")

Identity = tuple[str, int, int]  # UUID, size in bytes, mtime in nanoseconds


class PlannedImage(NamedTuple):
    """An image and the shard that owns it."""

    uuid: str
    path: str
    size: int
    mtime_ns: int
    shard: str

    @property
    def identity(self) -> Identity:
        """UUID, size and time: the image as a shard list names it."""
        return self.uuid, self.size, self.mtime_ns


@dataclass(frozen=True)
class Plan:
    """The next manifest, the rejected files, and the new shards."""

    images: list[PlannedImage]
    rejected: list[RejectedFile]
    new_shards: list[str]

    def summary(self) -> str:
        """Count all photos, new photos and new shards, in one line."""
        new = set(self.new_shards)
        n_new = sum(image.shard in new for image in self.images)
        return f"photos: {len(self.images)}, new among them: {n_new} (shards: {len(new)})"

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
        """Compute the digest of the next manifest and the rejected files: 16 hexadecimal digits."""
        sha256 = hashlib.sha256()
        for rows in (self.images, self.rejected):
            for row in rows:
                sha256.update("\0".join(map(str, row)).encode("utf-8", "surrogateescape") + b"\n")
        return sha256.hexdigest()[:16]


def make_plan(
    shards: dict[str, set[Identity]],
    images: list[ImageFile],
    rejected: list[RejectedFile],
    shard_size: int,
    *,
    recompute: bool = False,
    retry: frozenset[str] = frozenset(),
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

    Returns
    -------
    Plan
        With its images in order of UUID.
    """
    owner: dict[Identity, str] = {}
    if not recompute:
        for shard in sorted(shards):  # the newest wins
            owner.update(dict.fromkeys(shards[shard], shard))
    planned, new_shards, n_new = [], [], 0
    last = max(map(int, shards), default=0)
    for image in sorted(images):
        found = owner.get((image.uuid, image.size, image.mtime_ns))
        if found is None or image.uuid in retry:
            shard = f"{last + 1 + n_new // shard_size:06d}"
            if n_new % shard_size == 0:
                new_shards.append(shard)
            n_new += 1
        else:
            shard = found
        planned.append(PlannedImage(*image, shard))
    return Plan(planned, rejected, new_shards)


def read_shard_lists(folder: str | Path) -> dict[str, set[Identity]]:
    """Read the identities that each shard below a state folder may own; empty if the folder is missing."""
    shards = {path.stem: set(read_shard_list(path)) for path in shard_lists(f"{folder}/shards")}
    for path in Path(folder, "embeddings").glob("[0-9]*.unread.tsv"):
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
    return sorted(Path(folder).glob("[0-9]*.tsv"))


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
    except ValueError:
        raise damaged(path) from None


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write the plan for the jobs of this run."""
    rejected = (("", file.path, "", "", "", file.reason) for file in plan.rejected)
    write_tsv(path, PLAN_COLUMNS, [*((*image, "") for image in plan.images), *rejected])


def read_plan(path: str | Path, shard: str | None = None) -> tuple[list[PlannedImage], list[RejectedFile]]:
    """Read the images and rejected files of the plan, or only the images that one shard owns."""
    images, rejected = [], []
    for uuid, image_path, size, mtime_ns, owner, reason in read_tsv(path, PLAN_COLUMNS):
        if reason:
            rejected.append(RejectedFile(image_path, reason))
        elif shard is None or owner == shard:
            if not (size.lstrip("-").isdecimal() and mtime_ns.lstrip("-").isdecimal()):
                raise damaged(path)
            images.append(PlannedImage(uuid, image_path, int(size), int(mtime_ns), owner))
    return images, rejected


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
    write_tsv(manifest_path, MANIFEST_COLUMNS, images)
    return Plan(images, rejected, new_shards)
