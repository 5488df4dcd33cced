"""The commands of `crossfilter-inference`. The scripts of the same names run the same functions."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import InputError, TooManyFailed
from . import command
from .options import COMMAND, UsageError, is_script

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..collection import Collection, Photo
    from ..config import Config


@dataclass(frozen=True)
class CollectionOptions:
    """Options that choose the collection of a command.

    Parameters
    ----------
    output_embeddings_db : str, optional
        Database of the collection.
    configfile : list of Path, optional
        Configuration files of the collection; later ones override earlier ones.
    embedding_type : str, optional
        Embedding type. Default: as configured, or the only type in the database.
    device : str, optional
        Device of the encoder: auto, cpu, cuda or mps. Default: as configured.
    """

    output_embeddings_db: Path | None = None
    configfile: list[Path] | None = None
    embedding_type: str | None = None
    device: str | None = None


def run(
    folder: list[str] | None = None,
    *snakemake_options: str,
    output_embeddings_db: Path | None = None,
    embedding_type: str | None = None,
    batch_size: str | None = None,
    recompute_existing_embeddings: bool | None = None,
    reproject_umap_embeddings: bool | None = None,
    device: str | None = None,
    configfile: list[Path] | None = None,
    cores: str = "all",
) -> str:
    """Embed the photos in folders into a database, and map them.

    A later run embeds only new and changed photos. All files are written next to the database. Options after -- go to
    Snakemake; for example, -n previews the run.

    Parameters
    ----------
    folder : list of str, optional
        Folders of photos named by UUIDs; subfolders are included.
    *snakemake_options : str
        Options for Snakemake; `--config` overrides the options above.
    output_embeddings_db : Path, optional
        SQLite database to create or update.
    embedding_type : str, optional
        Encoder to use: SIGLIP2 (the default), EFFICIENTNET_LITE0, or one from a configuration file.
    batch_size : str, optional
        Photos per call of the encoder, or auto (the default).
    recompute_existing_embeddings : bool, optional
        Embed every photo again. Default: no.
    reproject_umap_embeddings : bool, optional
        Update the map after embedding. Default: yes.
    device : str, optional
        Device of the encoder: auto (the default), cpu, cuda or mps.
    configfile : list of Path, optional
        Configuration file with further settings; can be repeated.
    cores : str
        CPU cores to use: a number, or all.

    Examples
    --------
        crossfilter-inference run ~/photos-by-uuid --output_embeddings_db photos.sqlite
        crossfilter-inference run --configfile mine.yaml -- --dry-run
    """
    from .workflow import run_workflow

    changes = {
        "input_dir": folder or None,
        "output_embeddings_db": output_embeddings_db and str(output_embeddings_db),
        "embedding_type": embedding_type,
        "batch_size": batch_size,
        "recompute_existing_embeddings": recompute_existing_embeddings,
        "reproject_umap_embeddings": reproject_umap_embeddings,
        "device": device,
    }
    if not (folder or configfile or snakemake_options):
        raise InputError(f"name a folder of photos: {COMMAND} run FOLDER --output_embeddings_db photos.sqlite")
    run_workflow(configfile or [], changes, snakemake_options, cores)


def search(
    *,
    uuid: str | None = None,
    image: Path | None = None,
    text: str | None = None,
    n: Annotated[int, {"min": 1}] = 10,
    json: bool = False,
    html: Path | None = None,
    collection: CollectionOptions,
) -> str:
    """Find photos similar to a photo of the collection, an image file or a text.

    Give one of --uuid, --image and --text. Text needs an encoder with a text tower, such as SIGLIP2. The command prints
    similarity (cosine), UUID and path, the most similar photo first.

    Parameters
    ----------
    uuid : str, optional
        UUID of a photo of the collection; a prefix is enough.
    image : Path, optional
        Image file; it need not be in the collection.
    text : str, optional
        Description of the photos to find, such as 'a red panda on a branch'.
    n : int
        Number of photos to find.
    json : bool
        Print JSON.
    html : Path, optional
        Also write a contact sheet to this HTML file.

    Examples
    --------
        crossfilter-inference search --output_embeddings_db photos.sqlite --uuid 5237ab3d
        crossfilter-inference search --output_embeddings_db photos.sqlite --image demo/photos/fish/1487d17f*.jpg --n 5
    """
    if sum(bool(query) for query in (uuid, image, text)) != 1:
        raise UsageError("give one of --uuid, --image and --text")

    from ..search import find_uuid
    from ..search import search as find
    from ..view.contact_sheet import write_contact_sheet

    photos = _open(collection)
    known = find_uuid(photos, uuid) if uuid else None
    loaded = photos.load_image(str(image)) if image else None
    if known:
        query = photos.embeddings[photos.uuids.index(known)]
    else:
        query = photos.embed_image(loaded) if loaded else photos.embed_text(text or "")
    found = find(photos, query, n, without=known)
    if json:
        _print_json([photo._asdict() for photo in found])
    else:
        for photo in found:
            command.show(f"{photo.similarity:.4f}  {photo.uuid}  {photo.path}")
    if html:
        groups = [("Most similar first", [(photo.uuid, photo.path, f"{photo.similarity:.3f}") for photo in found])]
        thumbnails = photos.thumbnails([*([known] if known else []), *(photo.uuid for photo in found)])
        if known:
            groups.insert(0, ("", [(known, photos.photos([known])[known].path, "")]))
        elif image and loaded:
            groups.insert(0, ("", [("", str(image), "")]))
            thumbnails[""] = loaded.thumbnail
        title = f"Photos of {text}" if text else "Photos like this one"
        write_contact_sheet(str(html), title, groups, thumbnails)
    return f"{len(found)} of {len(photos.uuids):,} photos{_look_at(html)}"


def duplicates(
    *,
    least_cosine: Annotated[float, {"min": -1, "max": 1}] = 0.6,
    by_cosine_alone: bool = False,
    json: bool = False,
    html: Path | None = None,
    collection: CollectionOptions,
) -> str:
    """Find near-duplicates: photos that were recompressed, resized or slightly cropped.

    The command prints groups of near-duplicates, the largest group first, and the largest photo of each group first.
    It deletes nothing.

    Parameters
    ----------
    least_cosine : float
        Ignore pairs of photos below this similarity (cosine of centred embeddings).
    by_cosine_alone : bool
        Do not compare thumbnails. With a --least_cosine of about 0.8, this also groups photos of the same scene.
    json : bool
        Print JSON.
    html : Path, optional
        Also write a contact sheet of the groups to this HTML file.

    Examples
    --------
        crossfilter-inference duplicates --output_embeddings_db photos.sqlite --html duplicates.html
    """
    from ..duplicates import find_duplicates
    from ..util.text import counted
    from ..view.contact_sheet import write_contact_sheet

    photos = _open(collection)
    groups = find_duplicates(photos, least_cosine, os.cpu_count() or 1, by_cosine_alone=by_cosine_alone)
    if json:
        _print_json([[asdict(photo) for photo in group] for group in groups])
    else:
        for number, group in enumerate(groups, 1):
            command.show(f"group {number}")
            for photo in group:
                command.show(f"  {photo.uuid}  {_size(photo)}  {photo.path}")
    if html:
        sheet = [
            (f"Group {number}", [(photo.uuid, photo.path, _size(photo)) for photo in group])
            for number, group in enumerate(groups, 1)
        ]
        thumbnails = photos.thumbnails([photo.uuid for group in groups for photo in group])
        write_contact_sheet(str(html), f"{counted(len(groups), 'groups')} of near-duplicates", sheet, thumbnails)
    n_photos = sum(map(len, groups))
    found = f"groups: {len(groups)}, with {n_photos} of {len(photos.uuids):,} photos"
    return f"{found}; {n_photos - len(groups)} could be removed{_look_at(html)}"


def export(
    *,
    parquet: Path | None = None,
    npy: Path | None = None,
    atlas: Path | None = None,
    collection: CollectionOptions,
) -> str:
    """Export embeddings and map to Parquet and NumPy files.

    Parameters
    ----------
    parquet : Path, optional
        Parquet file of embeddings, positions and neighbours of all photos.
    npy : Path, optional
        NumPy file of the embeddings as one array; the UUIDs go into a text file next to it (.uuids.txt).
    atlas : Path, optional
        Parquet file for embedding-atlas; to open it: embedding-atlas FILE --x X --y Y --neighbors NEIGHBOURS.

    Examples
    --------
        crossfilter-inference export --output_embeddings_db photos.sqlite --parquet photos.parquet --npy photos.npy
    """
    if not (parquet or npy or atlas):
        raise InputError("nothing to export: name one of --parquet, --npy and --atlas")
    if (parquet or atlas) and not importlib.util.find_spec("pyarrow"):
        raise InputError(f"pyarrow, which writes Parquet files, is missing; run pip install '{COMMAND}[parquet]'")

    from ..util.text import counted
    from ..view.export import write_atlas, write_npy, write_parquet

    photos = _open(collection)
    written = []
    if npy:
        written += [str(npy), write_npy(str(npy), photos)]
    if parquet or atlas:
        contents = photos.read_map()
        if parquet:
            write_parquet(str(parquet), photos, contents)
            written.append(str(parquet))
        if atlas:
            write_atlas(str(atlas), photos, contents)
            written.append(str(atlas))
    return f"{counted(len(photos.uuids), 'photos')} in {', '.join(written)}"


def verify(*, input_dir: list[str] | None = None, sample: int = 8, collection: CollectionOptions) -> str:
    """Check that the database, manifest, shards and map agree (read-only).

    The command prints one line per check, and how to fix each failure. The exit code is 0 if all checks pass, and
    1 if a check fails or a run is in progress.

    Parameters
    ----------
    input_dir : list of str, optional
        Folders of photos. Default: as configured, or as in the last run.
    sample : int
        Number of random photos to re-embed and compare with the stored rows; 0 skips this check.

    Examples
    --------
        crossfilter-inference verify --output_embeddings_db photos.sqlite --sample 20
    """
    from ..verify.checks import closing_line
    from ..verify.checks import verify as run_checks

    checks = []
    for check in run_checks(_find_config(collection, input_dir), n_sample=sample, n_threads=os.cpu_count() or 1):
        command.show(check)
        checks.append(check)
    command.show(closing_line(checks))
    sys.exit(int(any(check.state == "FAILED" for check in checks)))


def report(file: Path = Path("report.html"), *, collection: CollectionOptions) -> str:
    """Write a report of the collection as one HTML file.

    The report is for someone who did not run the workflow. It shows the map, the outcome of every file, failures, map
    quality, times and versions. The command first brings the collection up to date. If more photos failed than
    max_failed_share allows, it also writes the report, and exits with code 3.

    Parameters
    ----------
    file : Path
        HTML file to write.

    Examples
    --------
        crossfilter-inference report --output_embeddings_db photos.sqlite
    """
    from ..db.state import state_folder
    from ..run.finish import check_failures
    from ..shards.plan import read_plan
    from .workflow import snakemake_command

    config = _find_config(collection)
    for options in (["summarise"], ["summarise", "--report", os.path.abspath(file)]):
        code = subprocess.run(snakemake_command([], config.model_dump(), options), check=False).returncode
        if code not in (0, TooManyFailed.exit_code):
            sys.exit(code)
    logger.info("%s%s", file, _look_at(file))
    state = Path(state_folder(config.output_embeddings_db), config.embedding_type)
    check_failures(str(state), read_plan(state / "plan.tsv")[0], config.max_failed_share)
    return ""


COMMANDS = (run, search, duplicates, export, verify, report)


def main() -> None:
    """Run `crossfilter-inference`."""
    command.run(COMMANDS, about="Embed a folder of photos, map them on a globe, search them, and find duplicates.")


def _open(options: CollectionOptions) -> "Collection":
    from ..collection import Collection

    if options.output_embeddings_db and not (is_script() or options.configfile or _last_config(options).exists()):
        return Collection(options.output_embeddings_db, options.embedding_type, device=options.device or "auto")
    config = _find_config(options)
    return Collection(config.output_embeddings_db, config.embedding_type, device=config.device, labels=config.labels)


def _find_config(options: CollectionOptions, input_dir: list[str] | None = None) -> "Config":
    """Read the configuration of a collection: settings of the last run, overridden by files and options."""
    from ..config import read_config
    from ..project import project_folder

    files = [project_folder() / "config.yaml"] if is_script() else []
    embedding_type = options.embedding_type
    if options.output_embeddings_db and not files:
        last = _last_config(options)
        embedding_type = last.parent.name
        if last.exists():
            files.append(last)
        elif not (input_dir or options.configfile):
            raise InputError(
                f"{str(last)!r}, which holds the settings of the last run, is missing; name the folders of photos "
                "(--input_dir) or the configuration (--configfile)"
            )
    files += options.configfile or []
    if not (files or options.output_embeddings_db):
        raise InputError("no collection given; add --output_embeddings_db photos.sqlite or --configfile mine.yaml")
    changes = {
        "output_embeddings_db": options.output_embeddings_db and str(options.output_embeddings_db),
        "embedding_type": embedding_type,
        "device": options.device,
        "input_dir": input_dir,
    }
    return read_config(files, changes)


def _last_config(options: CollectionOptions) -> Path:
    """Find the settings of the last run on a database, for the embedding type that the options or files name."""
    from ..collection import only_embedding_type
    from ..config import read_config_file
    from ..db.state import state_folder

    database = str(options.output_embeddings_db)
    named = [read_config_file(path).get("embedding_type") for path in options.configfile or []]
    embedding_type = options.embedding_type or next(filter(None, reversed(named)), None)
    return Path(state_folder(database), str(embedding_type or only_embedding_type(database)), "config.json")


def _look_at(page: Path | None) -> str:
    return f"; look at: {page.absolute().as_uri()}" if page else ""


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _size(photo: "Photo") -> str:
    if not photo.width or not photo.size:
        return "size unknown"
    return f"{photo.width} x {photo.height}, {max(photo.size // 1000, 1):,} kB"
