"""Plan a run: read the configuration and the state, scan the photos, and decide which jobs are needed.

One function does everything before a run's first job. It writes nothing, and imports only the packages that Snakemake
brings. So `snakemake -n` shows the exact jobs.

A stamp is an empty file. Its name holds a digest of the settings that another file was made with. The rule that makes
that file also writes the stamp, and `all` requires it. So a changed setting is detected even without Snakemake's
records.
"""

import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

from ..config import Config, check_config, read_config_file
from ..db import crossfilter
from ..db.state import state_folder
from ..encoders import identity
from ..map import settings as map_settings
from ..photos.missing import MissingPhotoSearch
from ..photos.names import EXTRAS, canonical_uuid
from ..photos.scan import NOT_A_UUID, Scan, excluding
from ..shards.merge import STORE_VERSION
from ..shards.naming import scan_photos
from ..shards.plan import (
    REMOVED,
    Identity,
    LastPlan,
    Plan,
    find_missing,
    make_plan,
    may_change_plan,
    read_last_plan,
    read_shard_lists,
    shards_at_work,
    unlisted_shards,
)
from ..util.files import digest, read_json
from ..util.garbage import without_garbage_collection
from ..util.text import choosing, counted
from .database import (
    adoptable_photos,
    check_database_format,
    check_database_path,
    failed_photos,
    generation,
    stored_embed_version,
    stored_photos,
)
from .finish import map_record, page_line
from .forecast import Cost, Shares, embedding_cost, forecast, share_out

_MAP_FILES = (
    *("map.html", "map.png", "map.svg", "map.tsv"),
    *("map_quality.json", "map_stored.json", "neighbours.npz", "umap_model.pkl"),
)


@dataclass(frozen=True)
class Resources:
    """Resources that a run may use.

    Attributes
    ----------
    cores : int
        Cores of this machine.
    nodes : int or None
        Jobs that a cluster may run at once; None without a cluster.
    n_gpus : int or None
        GPUs in use at once; None if unknown.
    is_main_process : bool
        False in a job on a cluster, which neither scans nor plans.
    """

    cores: int = 1
    nodes: int | None = None
    n_gpus: int | None = None
    is_main_process: bool = True

    @classmethod
    def of_snakemake(cls, workflow: Any) -> "Resources":
        """Read them from Snakemake's workflow object. Nothing else touches its internals.

        Options that run no jobs, such as `--dag`, give no number of cores. A key that a configuration file sets twice,
        which Snakemake overlooks, is an InputError; the files of a workflow that uses this one as a module are its own.
        """
        is_own = workflow.is_main_process and workflow.modifier.is_main_snakefile()
        for path in workflow.configfiles if is_own else ():
            read_config_file(path)
        settings = workflow.resource_settings
        return cls(
            cores=settings.cores or 1,
            nodes=settings.nodes,
            n_gpus=workflow.global_resources.get("gpu").value,
            is_main_process=workflow.is_main_process,
        )

    @property
    def on_cluster(self) -> bool:
        """Whether jobs may run on other machines."""
        return self.nodes is not None or not self.is_main_process


@dataclass(frozen=True)
class Stamps:
    """The stamps of a run: paths of empty files, by the settings or the contents that they represent."""

    manifest: str
    encoder: str
    store: str
    umap: str
    map: str
    page: str

    def in_use(self, *, with_map: bool) -> list[str]:
        """List those that a run requires."""
        stamps = [self.manifest, self.encoder, self.store]
        return [*stamps, self.umap, self.map, self.page] if with_map else stamps


@dataclass(frozen=True)
class Deletions:
    """The embeddings that a run deletes, because their photos are known to be removed.

    Attributes
    ----------
    n_deleted, n_rows : int
        Number of embeddings to delete, and of all embeddings before this run.
    held_back : Counter
        Number of embeddings of missing photos that stay, by why the photo may still exist.
    """

    n_deleted: int = 0
    n_rows: int = 0
    held_back: Counter[str] = field(default_factory=Counter)

    def line(self, head: str) -> str:
        """Describe them in one line, such as `to delete: 2 embeddings of missing photos; held back: ...`."""
        reasons = ", ".join(f"{n:,}: {reason}" for reason, n in self.held_back.most_common())
        held_back = f"; held back: {counted(self.held_back.total(), 'embeddings')} ({reasons})" if reasons else ""
        return f"{head} {counted(self.n_deleted, 'embeddings')} of missing photos{held_back}"


@dataclass(frozen=True)
class Run:
    """A planned run.

    Attributes
    ----------
    config : Config
    resources : Resources
    state : str
        State folder of the embedding type.
    plan : Plan
    known_shards : collection of str
        Shards that existed when the plan was made.
    shards : list of str
        Shards that this run makes or uses, the oldest first.
    shares : Shares
    cost : Cost
    stamps : Stamps
    store_generation, map_generation : int
        Numbers that rise when the database is not the one that the last run left.
    deletions : Deletions or None
        None if `missing_images` is keep.
    map_before : bytes
        Record of the map of the last run; empty if there is none.
    started : float
        Time when the plan was made, in seconds since the epoch.
    notes, warnings : tuple of str
        Lines for the user, in this order.
    outputs : tuple of str
        In a job of a workflow that uses this one: the output of the run, as its main process planned it.
    """

    config: Config
    resources: Resources
    state: str
    plan: Plan
    known_shards: Collection[str]
    shards: list[str]
    shares: Shares
    cost: Cost
    stamps: Stamps
    store_generation: int = 0
    map_generation: int = 0
    deletions: Deletions | None = None
    map_before: bytes = b""
    started: float = field(default_factory=time.time)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def database(self) -> str:
        """Path of the database."""
        return self.config.output_embeddings_db

    @property
    def type(self) -> str:
        """Embedding type."""
        return self.config.embedding_type

    @property
    def deleted(self) -> str:
        """The closing line about embeddings of missing photos; empty under `missing_images: keep`."""
        return self.deletions.line("deleted: ") if self.deletions else ""

    @cached_property
    def shard_sizes(self) -> Counter[str]:
        """Photos that each shard owns."""
        return self.plan.shard_sizes()

    @property
    def with_words(self) -> bool:
        """Whether words of the encoder name the regions of the map."""
        return _uses_words(self.config)

    def final_output(self) -> list[str]:
        """List all output of the run."""
        if self.outputs:
            return [*self.outputs]
        files = ["manifest.tsv", "rejected.tsv", "encoder.json", "embeddings.json"]
        # Missing shard databases require their lists. Without those, the next run has the same output.
        known = [shard for shard in self.plan.new_shards if os.path.exists(f"{self.state}/embeddings/{shard}.sqlite")]
        files += [f"shards/{shard}.tsv" for shard in known]
        files += [f"embeddings/{shard}.sqlite" for shard in self.shards]
        if self.config.reproject_umap_embeddings:
            files += [*_MAP_FILES, *(["words.npz"] if self.with_words else [])]
        stamps = self.stamps.in_use(with_map=self.config.reproject_umap_embeddings)
        return [self.database, *(f"<results>/{file}" for file in files), *stamps]


@without_garbage_collection()
def prepare_run(config: Mapping[str, object] | Config, resources: Resources) -> Run:
    """Plan a run; write nothing.

    Parameters
    ----------
    config : mapping or Config
        The settings, as read from YAML or checked already.
    resources : Resources

    Raises
    ------
    InputError
        If the configuration is not valid, the database cannot be written or has a newer format, a folder cannot be
        read or holds no photo, or a file of the state is damaged.
    """
    config = config if isinstance(config, Config) else check_config(config)
    database, settings = config.output_embeddings_db, config.encoder.model_dump()
    state = f"{state_folder(database)}/{config.embedding_type}"
    shares = share_out(
        None if resources.on_cluster else resources.cores,
        resources.nodes,
        resources.n_gpus,
        may_use_gpu=identity.may_use_gpu(settings, config.device),
    )
    cost = embedding_cost(state, config.encoder.backend, shares)
    if not resources.is_main_process:
        nothing = Plan([], [], [])
        stamps = _stamps(config, nothing, nothing.digest(), 0, 0)
        return Run(config, resources, state, nothing, [], [], shares, cost, stamps)

    check_database_path(database, config.input_dir)
    check_database_format(database, config.embedding_type)
    known_shards = read_shard_lists(state)
    last_plan = cache(partial(read_last_plan, f"{state}/plan.tsv"))
    scan = scan_photos(config, state, last_plan)
    scan.check(list(config.input_dir), any_name=config.names == "any")
    plan_after = partial(
        make_plan,
        known_shards,
        scan.images,
        scan.rejected,
        cost.shard_size if config.shard_size == "auto" else config.shard_size,
        recompute=config.recompute_existing_embeddings,
        retry=failed_photos(database, config.embedding_type) if config.retry_failures else frozenset(),
    )
    plan, deletions = plan_after(), None
    plan_digest, listed_digest = plan.digests()
    if config.reread_photos or not _is_last_plan(config, state, plan, listed_digest, known_shards):
        last = last_plan()
        unlisted = unlisted_shards(state, known_shards)
        # Without rows to copy, reading every image again would mean to embed it again.
        if last or stored_photos(database, config.embedding_type):
            known = {} if config.reread_photos else last
            if may_change_plan(known, plan, unlisted):
                plan = plan_after(last=known, unlisted=unlisted)
            plan_digest = plan.digest()
        plan, deletions = _with_missing(config, plan, known_shards, scan, last)
        n_moved = sum(last[uuid][1] != path for uuid, path, *_ in plan.images if uuid in last)
        plan = replace(plan, n_moved=n_moved)
    shards = shards_at_work(plan, known_shards, state)
    stranger = plan.strangers(known_shards) if config.missing_images == "keep" else ""
    expected = forecast(
        state,
        cost,
        shares,
        plan.shard_sizes(),
        shards,
        with_map=config.reproject_umap_embeddings,
        words=identity.words_cost(config.encoder.backend) if _uses_words(config) else 0,
        n_reread=plan.n_reread,
    )
    to_delete = deletions.line("to delete:") if deletions else ""
    store_generation, map_generation = (
        generation(database, f"{state}/{receipt}", config.embedding_type, key)
        for receipt, key in (("embeddings.json", "embeddings_digest"), ("map_stored.json", "map_digest"))
    )
    stamps = _stamps(config, plan, plan_digest, store_generation, map_generation)
    required = stamps.in_use(with_map=config.reproject_umap_embeddings)
    is_done = all(os.path.exists(stamp.replace("<results>", state)) for stamp in required)
    notes = (
        f"{plan.summary()}; {scan.summary()}",
        _nameless(scan),
        *_unreadable(config, scan),
        _adoptable(config, plan),
        to_delete,
        expected or (page_line(state) if is_done else ""),  # the closing lines of a run have the link
    )
    return Run(
        config,
        resources,
        state,
        plan,
        [*known_shards],
        shards,
        shares,
        cost,
        stamps,
        store_generation,
        map_generation,
        deletions,
        map_record(state),
        notes=tuple(filter(None, notes)),
        warnings=tuple(filter(None, (stranger, _upgrade(config, state, plan)))),
    )


def _unreadable(config: Config, scan: Scan) -> list[str]:
    """Report photos of formats whose packages are not installed, and how to include them."""
    if config.names == "uuid" or config.image_extensions != "auto":
        return []
    counts = {name: sum(scan.n_others[kind] for kind in extra.extensions) for name, extra in EXTRAS.items()}
    return [
        f"left out: {counted(n, 'files')} of {EXTRAS[name].name}; run pip install 'crossfilter-inference[{name}]' to "
        f"include {'it' if n == 1 else 'them'}"
        for name, n in counts.items()
        if n
    ]


def _nameless(scan: Scan) -> str:
    """Report photos that are left out for their names alone, and how to include them; empty if there are none."""
    n_photos = sum(file.reason == NOT_A_UUID for file in scan.rejected)
    return (
        f"left out: {counted(n_photos, 'photos')} not named with a UUID; {choosing('names', 'any')} to include them"
        if n_photos
        else ""
    )


def _adoptable(config: Config, plan: Plan) -> str:
    """Report embeddings of Crossfilter's application that the run may adopt; empty if there are none."""
    if not plan.new_shards or config.recompute_existing_embeddings:
        return ""
    rows = adoptable_photos(config.output_embeddings_db, config.embedding_type)
    if not rows:
        return ""
    n_photos = sum(image.uuid in rows for image in plan.images)
    return (
        f"to adopt, if this encoder could have made them: {counted(n_photos, 'embeddings')} of Crossfilter's "
        f"application ({crossfilter.embeddings}); photos not found: {len(rows) - n_photos:,}"
    )


def _upgrade(config: Config, state: str, plan: Plan) -> str:
    """Announce that a new version of the package embeds every photo again; empty if it does not."""
    # A run that was killed has left the encoder's new version, and the database as it was.
    recorded = stored_embed_version(config.output_embeddings_db, config.embedding_type)
    path = f"{state}/encoder.json"
    if recorded is None and os.path.exists(path):
        recorded = read_json(path).get("embed_version")
    if recorded in (None, identity.EMBED_VERSION):
        return ""
    known = {canonical_uuid(image.uuid) for image in plan.images}
    known |= {canonical_uuid(image.uuid) for image in plan.missing if image.reason == REMOVED}
    stored = stored_photos(config.output_embeddings_db, config.embedding_type)
    n_kept = sum(canonical_uuid(uuid) not in known for uuid in stored)
    kept = (
        f"; {counted(n_kept, 'embeddings')} of missing photos will stay as embed version {recorded}" if n_kept else ""
    )
    return (
        f"upgrade: all {counted(len(plan.images), 'photos')} will be embedded again, because {identity.EMBED_CHANGE}; "
        f"the database keeps its present rows until all new ones are computed{kept}"
    )


def _is_last_plan(
    config: Config, state: str, plan: Plan, listed_digest: str, known_shards: dict[str, set[Identity]]
) -> bool:
    """Return whether the last run had this plan apart from new shards, and no images are missing.

    Then the last plan changes nothing, and reading it would take a while.
    """
    return (
        config.missing_images == "keep"
        and os.path.exists(f"{state}/settings/manifest-{listed_digest}")
        and not (plan.may_miss_images and find_missing(known_shards, {}, plan.images, {}, None))
    )


def _with_missing(
    config: Config, plan: Plan, known_shards: dict[str, set[Identity]], scan: Scan, last: LastPlan
) -> tuple[Plan, Deletions | None]:
    """Add the missing images to a plan, and count the embeddings to delete."""
    if config.missing_images == "keep":
        return replace(plan, missing=find_missing(known_shards, {}, scan.images, last, None)), None
    stored = stored_photos(config.output_embeddings_db, config.embedding_type)
    doubt = MissingPhotoSearch(config.input_dir, scan, excluding(config.exclude)).doubt
    missing = find_missing(known_shards, stored, scan.images, last, doubt)
    # Without the database, every listed image may have a row in its shard, except those deleted before.
    rows = set(stored) or {uuid for listed in known_shards.values() for uuid, *_ in listed}
    if not stored:
        rows.difference_update(uuid for uuid, row in last.items() if row[-1] == REMOVED)
    reasons = Counter(image.reason for image in missing if image.uuid in rows)
    n_deleted = reasons.pop(REMOVED, 0)
    return replace(plan, missing=missing), Deletions(n_deleted, len(rows), reasons)


def _stamps(config: Config, plan: Plan, plan_digest: str, store_generation: int, map_generation: int) -> Stamps:
    values = {
        "manifest": plan_digest,
        "encoder": identity.settings_digest(config.embedding_type, config.encoder.model_dump()),
        "store": digest([STORE_VERSION, config.missing_images, store_generation, *_held_back(config, plan)]),
        "umap": map_settings.settings_digest(config.umap.model_dump(), config.labels),
        "map": str(map_generation),
        "page": digest(config.page.model_dump()),
    }
    return Stamps(**{name: f"<results>/settings/{name}-{value}" for name, value in values.items()})


def _uses_words(config: Config) -> bool:
    return not config.labels and identity.may_understand_texts(config.encoder.model_dump())


def _held_back(config: Config, plan: Plan) -> list[str]:
    if config.missing_images == "keep":
        return []
    return [image.uuid for image in plan.missing if image.reason != REMOVED]
