"""The settings of a run: typed, with their defaults, bounds and descriptions.

The field of a setting is the single source of its check, its error message and its default, of the JSON schema for
editors (`workflow/schemas/config.schema.yaml`), and of `docs/configuration.md`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .encoders.identity import backends, reads_checkpoints
from .errors import InputError
from .photos.names import JPEG_EXTENSIONS, readable_extensions
from .util.kinds import Choice, Number, Switch, Text, Texts, nearest, refusal, shown

Flag = Annotated[bool, Switch()]
Line = Annotated[str, Text()]
TypeName = Annotated[str, Text("[A-Z][A-Z0-9_]*", "capital letters, digits and _, a letter first")]
Dtype = Literal["auto", "float32", "bfloat16"]
Runtime = Literal["torch", "openvino"]
Pooling = Literal["cls", "mean", "pooler"]
Update = Literal["align", "place", "refit"]
Device = Literal["auto", "cpu", "cuda", "mps"]
MissingImages = Literal["keep", "delete"]
Names = Literal["uuid", "any"]


class Section(BaseModel):
    """A section of the configuration. A key without a value has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    def to_json(self) -> str:
        """Write the section as one line of JSON, for the command line of a job."""
        return json.dumps(self.model_dump(), sort_keys=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            raise refusal(f"{shown(values)} is not a section of keys")
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


def _with_shipped_encoders(encoders: Any) -> Any:
    return {**SHIPPED_ENCODERS, **encoders} if isinstance(encoders, Mapping) else encoders


SHIPPED_ENCODERS = {"SIGLIP2": {"backend": "siglip"}, "EFFICIENTNET_LITE0": {"backend": "efficientnet_lite0"}}


class Backend(Text):
    """A built-in backend or a Python file. The schema does not list the backends, so that a new one needs no change."""

    def check(self, value: object) -> str:
        backend = super().check(value)
        if backend not in backends() and not backend.endswith(".py"):
            raise refusal(
                f"{shown(value)} is not allowed; it must be {', '.join(backends())}, or the path of a Python file that "
                "ends in .py"
            )
        return backend


class EncoderSettings(Section):
    """Settings of one encoder."""

    backend: Annotated[str, Backend()] = Field(
        description="Built-in backend, or the path of your own, a Python file (docs/encoders.md)."
    )
    model: Line = Field(
        default="google/siglip2-base-patch16-224",
        description="Checkpoint: its name on the Hugging Face Hub, or its folder.",
    )
    revision: Line = Field(default="main", description="Branch, tag or commit on the Hugging Face Hub.")
    pooling: Annotated[Pooling | None, Choice(get_args(Pooling))] = Field(
        default=None,
        validate_default=False,
        exclude_if=lambda pooling: pooling is None,  # the digests of settings from before it existed must not change
        description="Which output of the network is the embedding (backends transformers, which needs it, and dino).",
    )
    dtype: Annotated[Dtype, Choice(get_args(Dtype))] = Field(
        default="auto",
        description="Number format of the network. auto: bfloat16 on a GPU that supports it, otherwise float32.",
    )
    runtime: Annotated[Runtime, Choice(get_args(Runtime))] = Field(
        default="torch", description="Library that runs the network. openvino runs on CPUs and is a separate package."
    )

    @model_validator(mode="after")
    def _needs_model(self) -> Self:
        # The default is a checkpoint of SigLIP 2, which only one backend loads.
        if "model" not in self.model_fields_set and self.backend != "siglip" and reads_checkpoints(self.backend):
            raise refusal(
                f"model: missing; the backend {self.backend} needs a checkpoint: its name on the Hugging Face Hub, or "
                "its folder (docs/encoders.md lists some)"
            )
        return self


class UmapSettings(Section):
    """Settings of the map."""

    n_neighbors: Annotated[int, Number(int, 2, 1000)] = Field(
        default=15, description="Number of neighbours that set a photo's position."
    )
    min_dist: Annotated[float | Literal["auto"], Number(float, 0, 1, auto=True)] = Field(
        default="auto",
        description="Minimum distance between photos on the map, as a length on the sphere (umap.radius).",
    )
    radius: Annotated[float | Literal["auto"], Number(float, 0.5, 100, auto=True)] = Field(
        default="auto",
        description="Radius of the sphere in UMAP's units of length. A larger one leaves more room between groups.",
    )
    repulsion: Annotated[float | Literal["auto"], Number(float, 0.01, 100, auto=True)] = Field(
        default="auto",
        description="Factor of the force that keeps photos apart. A larger one shows more detail; a much larger one "
        "breaks groups up.",
    )
    update: Annotated[Update, Choice(get_args(Update))] = Field(
        default="align", description="How the map changes when photos are added or removed."
    )
    refit_share: Annotated[float, Number(float, 0, 1)] = Field(
        default=0.2, description="Share of new photos above which align makes a new map."
    )
    compare_with_plane: Flag = Field(
        default=False, description="Also measure how many neighbours a flat UMAP would keep."
    )
    random_state: Annotated[int, Number(int, 0, 2**32 - 1)] = Field(
        default=42, description="Random seed. The same seed gives the same map."
    )


class PageSettings(Section):
    """Settings of the globe as a file, `map.html`."""

    thumbnail_size: Annotated[int | Literal["auto"], Number(int, 32, 192, auto=True)] = Field(
        default="auto",
        description="Long side of the thumbnails, in pixels. auto: 192 if all of them fit on the page, otherwise 96.",
    )
    max_megabytes: Annotated[int, Number(int, 10, 400)] = Field(
        default=95, description="Maximum size of the page. It contains as many photos and thumbnails as fit."
    )


# Folders in which other programs keep deleted photos, older versions, backups and thumbnails, and files that are no
# photos in spite of their names.
_TRASH_AND_CACHES = (
    # Deleted photos of computers and phones.
    *(".Trash", ".Trash-*", ".Trashes", ".local", "$RECYCLE.BIN", "RECYCLER", "RECYCLED", ".trashed-*"),
    *(".globalTrash", ".RecycleBinHW", ".dtrash", "Network Trash Folder"),
    # Deleted photos of network drives and cloud services.
    *("#recycle", "@Recycle", ".recycle", ".Recycle.Bin", "trashbox", "files_trashbin", ".debris", ".SyncTrash"),
    # Snapshots and older versions.
    *("#snapshot", "@Recently-Snapshot", ".snapshot", "~snapshot", ".snapshots", ".zfs", ".stversions"),
    *("files_versions", ".sync", ".SyncArchive", "Backups.backupdb", ".MobileBackups"),
    *(".DocumentRevisions-V100", "System Volume Information"),
    # Thumbnails and previews.
    *("@eaDir", ".@__thumb", ".wdmc", ".thumbnails", ".thumbs", ".xvpics", "*.lrdata", ".cache"),
    # Photos as they were before an edit (Picasa, ACDSee).
    *(".picasaoriginals", "[[]Originals[]]"),
    # Unfinished files.
    *(".pending-*", ".tmp.drive*", ".dropbox.cache", ".TemporaryItems", ".SynologyWorkingDirectory"),
    *(".@upload_cache", ".rsync-partial", ".~tmp~", "Temporary Items"),
    # What macOS adds to files and disks.
    *("._*", ".AppleDouble", "__MACOSX", ".Spotlight-V100", ".fseventsd"),
)


class Config(Section):
    """All settings of a run."""

    embedding_type: Line = Field(
        default="SIGLIP2",
        description="Encoder to use, one of those under encoders. Its name is the prefix of its tables.",
    )
    input_dir: Annotated[tuple[str, ...], Texts(Text(), one=True)] = Field(
        description="Folder of photos, including subfolders; or a list of folders."
    )
    output_embeddings_db: Annotated[str, Text("[^{}<>]+", "a path without any of { } < >")] = Field(
        description="SQLite database to create and keep up to date."
    )
    batch_size: Annotated[int | Literal["auto"], Number(int, 1, 4096, auto=True)] = Field(
        default="auto",
        description="Photos per call of the encoder, or auto. It affects embeddings only by rounding.",
    )
    device: Annotated[Device, Choice(get_args(Device))] = Field(
        default="auto", description="Device of the encoder. auto uses a GPU if PyTorch supports it, otherwise the CPU."
    )
    recompute_existing_embeddings: Flag = Field(default=False, description="Embed every photo again in every run.")
    reproject_umap_embeddings: Flag = Field(default=True, description="Update the map after embedding.")
    shard_size: Annotated[int | Literal["auto"], Number(int, 1, 1_000_000, auto=True)] = Field(
        default="auto", description="Photos per embedding job. auto keeps the startup of a job below 5% of its time."
    )
    names: Annotated[Names, Choice(get_args(Names))] = Field(
        default="uuid",
        description="Accepted file names. uuid: only UUIDs; other photos are left out. any: a photo whose name is not "
        "a UUID is assigned one, and keeps it when it is edited, moved or renamed.",
    )
    image_extensions: Annotated[
        tuple[str, ...] | Literal["auto"],
        Texts(Text(r"\.[^./\s]+", "a dot and an extension without spaces, such as .jpg"), auto=True),
    ] = Field(
        default="auto",
        description="File extensions of photos, each with its dot; case does not matter. auto: .jpg and .jpeg; with "
        "names: any, those of all supported formats.",
    )
    exclude: Annotated[
        tuple[str, ...],
        Texts(Text("[^/]+", "the name of a folder or a file, in which * matches anything"), optional=True),
    ] = Field(
        default=_TRASH_AND_CACHES,
        description="Names of folders and files to leave out, such as other programs' trash and caches; * matches "
        "anything, and case does not matter.",
    )
    missing_images: Annotated[MissingImages, Choice(get_args(MissingImages))] = Field(
        default="keep",
        description="Keep or delete the rows of missing photos. delete keeps rows of photos that may still exist.",
    )
    max_deleted_share: Annotated[float, Number(float, 0, 1)] = Field(
        default=0.2,
        description="Maximum share of the embeddings that one run may delete. Above it, the run changes nothing.",
    )
    max_megapixels: Annotated[float, Number(float, 0.001, 4000)] = Field(
        default=268,
        description="Photos with more megapixels fail, so that one huge image cannot exhaust memory.",
    )
    retry_failures: Flag = Field(default=False, description="Try failed photos again in every run.")
    reread_photos: Flag = Field(
        default=False,
        description="Read every photo and its sidecars again, for example to record locations; embed only photos with "
        "new contents.",
    )
    max_failed_share: Annotated[float, Number(float, 0, 1)] = Field(
        default=0.1,
        description="Maximum share of photos that may fail. Above it, the run stores all others, then ends with an "
        "error. Ignored for 20 photos or fewer.",
    )
    labels: Annotated[str, Text(optional=True)] = Field(
        default="", description="CSV file with columns UUID and LABEL, to name regions and to measure map quality."
    )
    encoders: Annotated[dict[TypeName, EncoderSettings], BeforeValidator(_with_shipped_encoders)] = Field(
        default_factory=dict, description="Encoders, by name."
    )
    umap: UmapSettings = Field(default_factory=UmapSettings, description="Settings of the map.")
    page: PageSettings = Field(default_factory=PageSettings, description="Settings of the globe as a file.")

    @property
    def extensions(self) -> tuple[str, ...]:
        """File extensions of photos."""
        if self.image_extensions != "auto":
            return self.image_extensions
        return JPEG_EXTENSIONS if self.names == "uuid" else readable_extensions()

    @property
    def encoder(self) -> EncoderSettings:
        """Settings of the encoder in use."""
        return self.encoders[self.embedding_type]

    def with_absolute_paths(self) -> "Config":
        """Return the same settings with absolute paths, valid in any folder."""

        def absolute(encoder: EncoderSettings) -> EncoderSettings:
            paths = {}
            if encoder.backend.endswith(".py"):
                paths["backend"] = os.path.abspath(encoder.backend)
            if os.path.isdir(encoder.model):
                paths["model"] = os.path.abspath(encoder.model)
            return encoder.model_copy(update=paths)

        return self.model_copy(
            update={
                "input_dir": tuple(map(os.path.abspath, self.input_dir)),
                "output_embeddings_db": os.path.abspath(self.output_embeddings_db),
                "labels": os.path.abspath(self.labels) if self.labels else "",
                "encoders": {name: absolute(encoder) for name, encoder in self.encoders.items()},
            }
        )


def merge_settings(files: Iterable[str | Path], changes: Mapping[str, object]) -> dict[str, object]:
    """Read files of settings, and override them; parameters as of `read_config`. The values are not checked."""
    settings: dict[str, object] = {}
    for path in files:
        update(settings, read_config_file(path))
    update(settings, {key: value for key, value in changes.items() if value is not None})
    return settings


def read_config(files: Iterable[str | Path], changes: Mapping[str, object]) -> Config:
    """Read the configuration from files, as a run does.

    Parameters
    ----------
    files : iterable of str or Path
        YAML files; later ones override earlier ones.
    changes : mapping
        Keys that override the files; None leaves a key as it is.

    Raises
    ------
    InputError
        If a file cannot be read, or the configuration is not valid.
    """
    return check_config(merge_settings(files, changes))


class DuplicateKey(Exception):
    """A key that a mapping has twice; the message says which, and where."""


class UniqueKeys(yaml.composer.Composer):
    """Refuse mappings with a key that is set twice. YAML forbids them, but PyYAML takes the last value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, object], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise DuplicateKey(f"sets {key.value!r} twice (lines {lines[name]} and {line})")
                lines[name] = line
        return node


class UniqueSafeLoader(UniqueKeys, yaml.SafeLoader):
    """Load YAML as Snakemake does, but refuse duplicate keys."""


def _read_json(text: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(read := dict(pairs)) < len(pairs):
            raise ValueError("duplicate keys")  # read as YAML, which names the line
        return read

    return json.loads(text, object_pairs_hook=unique)


def read_config_file(path: str | Path) -> dict[str, object]:
    """Read one file of settings.

    Raises
    ------
    InputError
        If it cannot be read, holds no keys, or sets a key twice. The message names the line of a mistake.
    """
    try:
        text = Path(path).read_text("utf-8")
        try:
            read = _read_json(text)  # as Snakemake does; YAML reads some texts differently
        except ValueError:
            read = yaml.load(text, UniqueSafeLoader)
    except OSError as error:
        raise InputError(f"--configfile: {str(path)!r} cannot be read ({error.strerror})") from None
    except DuplicateKey as error:
        raise InputError(f"--configfile: {str(path)!r} {error}; remove one of them. Nothing was changed") from None
    except UnicodeDecodeError:
        raise InputError(f"--configfile: {str(path)!r} is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"--configfile: {str(path)!r} is not valid YAML ({error.problem}{where})") from None
    except yaml.YAMLError as error:
        raise InputError(f"--configfile: {str(path)!r} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict | None):
        raise InputError(f"--configfile: {str(path)!r} contains no keys; write lines such as input_dir: ~/Pictures")
    return read or {}


def check_config(config: Mapping[str, object]) -> Config:
    """Check a configuration.

    Parameters
    ----------
    config : mapping
        As read from YAML. Numbers and booleans from the command line may still be text.

    Returns
    -------
    Config
        With every default filled in, and `~` expanded in paths.

    Raises
    ------
    InputError
        If the configuration is not valid. The message names the key, its value, the allowed values, and the nearest
        valid key if one is misspelt.
    """
    try:
        checked = Config.model_validate(config)
    except ValidationError as error:
        mistakes = sorted(error.errors(), key=lambda one: (len(one["loc"]), [*map(str, one["loc"])]))
        count = f" (1 of {len(mistakes)} mistakes)" if len(mistakes) > 1 else ""
        raise InputError(_describe(mistakes[0]) + count) from None
    if checked.embedding_type not in checked.encoders:
        raise InputError(
            f"embedding_type: {checked.embedding_type!r} is not configured"
            f"{nearest(checked.embedding_type, checked.encoders)}; choose one of "
            f"{', '.join(sorted(checked.encoders))}, or add it under encoders:"
        )
    checked = _with_home(checked)
    if checked.labels and not os.path.isfile(checked.labels):
        raise InputError(f"labels: {checked.labels!r} does not exist; name a CSV file with columns UUID and LABEL")
    return checked


def update(config: dict[str, object], changes: Mapping[str, object]) -> None:
    """Override keys of a configuration; sections are merged key by key."""
    for key, value in changes.items():
        old = config.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            update(old, value)
        else:
            config[key] = value


def _with_home(config: Config) -> Config:
    def expanded(encoder: EncoderSettings) -> EncoderSettings:
        paths = {"model": os.path.expanduser(encoder.model), "backend": os.path.expanduser(encoder.backend)}
        return encoder.model_copy(update=paths)

    return config.model_copy(
        update={
            "input_dir": tuple(map(os.path.expanduser, config.input_dir)),
            "labels": os.path.expanduser(config.labels),
            "output_embeddings_db": os.path.expanduser(config.output_embeddings_db),
            "encoders": {name: expanded(encoder) for name, encoder in config.encoders.items()},
        }
    )


def _describe(mistake: Any) -> str:
    location, value = [part for part in map(str, mistake["loc"]) if part != "[key]"], mistake["input"]
    key = ".".join(location)
    match mistake["type"]:
        case "extra_forbidden":
            *sections, name = location
            known = _section(sections).model_fields
            fix = nearest(name, known) or f"; the keys are {', '.join(known)}"
            return f"{key}: unknown key (value {shown(value)}){fix}"
        case "missing":
            return f"{key}: missing; give it a value ({_description(location)})"
        case "dict_type":
            return f"{key}: {shown(value)} is not a section of keys"
        case _:
            note = _description(location)
            return f"{key or 'config'}: {mistake['msg']}{f': {note}' if note else ''}"


def _section(location: list[str]) -> type[Section]:
    match location:
        case ["umap"]:
            return UmapSettings
        case ["page"]:
            return PageSettings
        case ["encoders", _]:
            return EncoderSettings
        case _:
            return Config


def _description(location: list[str]) -> str:
    field = _section(location[:-1]).model_fields.get(location[-1]) if location else None
    return (field.description or "").removesuffix(".") if field else ""
