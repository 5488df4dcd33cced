"""Which image is embedded in which shard: pure functions of the shard lists and the scan.

A shard list is written once and never changed. It names images by identity: UUID, size and time. The
owner of an image is the newest shard that lists it with the identity it has now; images without an owner
go into new shards. So a rerun touches only new shards, whatever happened to the folder, and an image that
only moved keeps its owner: the manifest, not the shard, knows paths. What a shard lists and could not read when its job
ran (a photo that was away, a disk that failed) stands beside its database as unread: it does not own that any more.

On disk, below the state folder of the collection:

    shards/000001.tsv   UUID SIZE MTIME_NS                  one shard list
    embeddings/000001.unread.tsv  the same                  what of it was not to be read; most often there is none
    manifest.tsv        UUID PATH SIZE MTIME_NS SHARD       every image and its owner, by UUID
    rejected.tsv        PATH REASON                         every other file with an image's extension
    retired.tsv         SHARD                               shards that nothing is needed of any more
    plan.tsv            UUID PATH SIZE MTIME_NS SHARD REASON   both, as the run at hand found them
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
        """UUID, size and time: what a shard list knows of an image."""
        return self.uuid, self.size, self.mtime_ns


@dataclass(frozen=True)
class Plan:
    """The manifest to be, the rejected files, and the shards that are new in it."""

    images: list[PlannedImage]
    rejected: list[RejectedFile]
    new_shards: list[str]

    def summary(self) -> str:
        """Say in one line what there is and what is new."""
        new = set(self.new_shards)
        n_new = sum(image.shard in new for image in self.images)
        return f"photos: {len(self.images)}, new among them: {n_new} (shards: {len(new)})"

    def strangers(self, shards: Mapping[str, Iterable[Identity]]) -> str:
        """Warn in one line if not one photo that the shards know is there, but others are; else empty."""
        if not self.images or any(image.shard in shards for image in self.images):
            return ""
        known = {uuid for rows in shards.values() for uuid, *_ in rows}
        if not known or any(image.uuid in known for image in self.images):
            return ""
        return (
            f"warning: none of the {len(known):,} photos of the last run is in input_dir; their rows stay, and other "
            "photos join them. If they are two collections, each needs an output_embeddings_db of its own"
        )

    def shard_sizes(self) -> Counter[str]:
        """Count the images that each shard owns."""
        return Counter(image.shard for image in self.images)

    def digest(self) -> str:
        """Digest what reaches the manifest: 16 hexadecimal digits."""
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
    """Give every image its owner.

    Parameters
    ----------
    shards : dict
        The identities that every shard list there is may own, by the shard's name of six digits.
    images : list of ImageFile
    rejected : list of RejectedFile
        Passed on.
    shard_size : int
        Images per new shard, at least 1.
    recompute : bool
        Give every image to a new shard.
    retry : frozenset of str
        UUIDs of images that go into a new shard.

    Returns
    -------
    Plan
        With images in order of UUID.
    """
    owner: dict[Identity, str] = {}
    if not recompute:
        for shard in sorted(shards):  # the newest wins
            owner.update(dict.fromkeys(shards[shard], shard))
    planned, new_shards, n_new = [], [], 0
    last = max(map(int, shards), default=0)
    for image in sorted(images):
        shard = owner.get((image.uuid, image.size, image.mtime_ns))
        if shard is None or image.uuid in retry:
            shard = f"{last + 1 + n_new // shard_size:06d}"
            if n_new % shard_size == 0:
                new_shards.append(shard)
            n_new += 1
        planned.append(PlannedImage(*image, shard))
    return Plan(planned, rejected, new_shards)


def read_shard_lists(folder: str | Path) -> dict[str, set[Identity]]:
    """Read what every shard below a state folder may own; nothing, if there is no such folder."""
    shards = {path.stem: set(read_shard_list(path)) for path in shard_lists(f"{folder}/shards")}
    for path in Path(folder, "embeddings").glob("[0-9]*.unread.tsv"):
        shards.get(path.name.split(".")[0], set()).difference_update(read_shard_list(path))
    return shards


def shards_at_work(plan: Plan, shards: Iterable[str], folder: str | Path) -> list[str]:
    """Name the shards that a run makes or uses, the oldest first.

    One that owns nothing has still a part if its database is there, as rows of photos that have gone may be in it;
    unless the last merge found that nothing is needed from it.
    """
    owners = {image.shard for image in plan.images}
    retired = read_retired(folder)
    others = {shard for shard in shards if Path(folder, "embeddings", f"{shard}.sqlite").exists()}
    return sorted(owners | (others - retired))


def read_retired(folder: str | Path) -> set[str]:
    """Name the shards from which the last merge needed nothing."""
    path = Path(folder, "retired.tsv")
    return {shard for (shard,) in read_tsv(path, RETIRED_COLUMNS)} if path.exists() else set()


def shard_lists(folder: str | Path) -> list[Path]:
    """Find every shard list in a folder, the oldest first."""
    return sorted(Path(folder).glob("[0-9]*.tsv"))


def remove_shard(folder: str | Path, shard: str) -> None:
    """Remove all that there is of a shard, its list last: a later shard of this name must not find its database."""
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
    """Read the plan of this run, or only the images that one shard owns."""
    images, rejected = [], []
    for uuid, image_path, size, mtime_ns, owner, reason in read_tsv(path, PLAN_COLUMNS):
        if reason:
            rejected.append(RejectedFile(image_path, reason))
        elif shard is None or owner == shard:
            images.append(PlannedImage(uuid, image_path, int(size), int(mtime_ns), owner))
    return images, rejected


def write_manifest(plan_path: str, manifest_path: str, rejected_path: str, shards_folder: str) -> Plan:
    """Promote the plan of this run: the new shard lists first, the manifest last.

    A shard list that is there already is never written again.

    Returns
    -------
    Plan
        What was written.
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
