"""The commands of `crossfilter-inference`. The scripts of the same names run the same functions."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from ..errors import InputError, TooManyFailed
from ..util.text import INSTALLED
from . import command
from .options import COMMAND, UsageError, is_script

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..collection import Collection, Photo
    from ..config import Config
    from ..view.previews import Previews
    from .outputs import Protected


@dataclass(frozen=True)
class CollectionOptions:
    """Options that choose the collection of a command.

    Parameters
    ----------
    output_embeddings_db : str, optional
        Database of the collection.
    configfile : list of Path, optional
        Configuration file; to give several, repeat the option. Later files override earlier ones.
    embedding_type : str, optional
        Embedding type to use. Default: as configured, or the only type in the database.
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
    names: str | None = None,
    embedding_type: str | None = None,
    batch_size: str | None = None,
    recompute_existing_embeddings: bool | None = None,
    reproject_umap_embeddings: bool | None = None,
    device: str | None = None,
    configfile: list[Path] | None = None,
    cores: str = "all",
    verbose: bool = False,
) -> str:
    """Embed the photos in folders into a database, and map them.

    A later run embeds only new and changed photos. The run writes its other files into a folder next to the database.
    Options after -- go to Snakemake; for example, -n previews the run.

    Parameters
    ----------
    folder : list of str, optional
        Folders of photos; subfolders are included.
    *snakemake_options : str
        Options for Snakemake; `--config` overrides the options above.
    output_embeddings_db : Path, optional
        SQLite database to create or update.
    names : str, optional
        Accepted file names: uuid, or any. uuid leaves out all photos whose names are not UUIDs; any assigns a UUID to
        each of them. Default: as in the last run; in the first run, uuid if the name of at least one photo is a UUID,
        otherwise any.
    embedding_type : str, optional
        Encoder to use: SIGLIP2, EFFICIENTNET_LITE0, or one from a configuration file. Default: as in the last run;
        in the first run, SIGLIP2.
    batch_size : str, optional
        Photos per call of the encoder, or auto (the default).
    recompute_existing_embeddings : bool, optional
        Embed every photo again. Default: no.
    reproject_umap_embeddings : bool, optional
        Update the map after embedding. Default: yes.
    device : str, optional
        Device of the encoder: auto (the default), cpu, cuda or mps.
    configfile : list of Path, optional
        Configuration file; to give several, repeat the option. Later files override earlier ones.
    cores : str
        CPU cores to use: a number, or all.
    verbose : bool
        Print a line for every job, and its messages.

    Examples
    --------
        crossfilter-inference run ~/Pictures --output_embeddings_db photos.sqlite
        crossfilter-inference run --configfile mine.yaml -- --dry-run
    """
    from .workflow import run_workflow

    changes = {
        "input_dir": folder or None,
        "output_embeddings_db": output_embeddings_db and str(output_embeddings_db),
        "names": names,
        "embedding_type": embedding_type,
        "batch_size": batch_size,
        "recompute_existing_embeddings": recompute_existing_embeddings,
        "reproject_umap_embeddings": reproject_umap_embeddings,
        "device": device,
    }
    if not (folder or configfile or snakemake_options):
        raise InputError(f"give a folder of photos: {COMMAND} run FOLDER --output_embeddings_db photos.sqlite")
    run_workflow(configfile or [], changes, snakemake_options, cores, verbose=verbose, defaults=_choose)


def _choose(given: Mapping[str, object]) -> dict[str, object]:
    """Choose the embedding type and the names of photos, if neither files nor options do: as in the last run."""
    database, folders = given.get("output_embeddings_db"), given.get("input_dir")
    chosen: dict[str, object] = {}
    if not isinstance(database, str):
        return chosen
    last = _last_configs(os.path.expanduser(database))
    if not given.get("embedding_type") and (last_type := _last_type(last)):
        logger.info("embedding_type: %s, as in the last run", last_type)
        chosen["embedding_type"] = last_type
    if not given.get("names"):
        names = _last_names(last) if last else _names_in(folders, given.get("exclude"))
        if names and not last:
            logger.info("names: any, because no file name is a UUID; each photo is assigned one, and keeps it")
        chosen |= {"names": names} if names else {}
    return chosen


def _last_configs(database: str) -> list[Path]:
    """Find the settings of the last run on a database, of each embedding type."""
    from ..db.state import state_folder

    return sorted(Path(state_folder(database)).glob("*/config.json"))


def _last_type(last: list[Path]) -> str | None:
    """Return the embedding type of a collection that has a single one, if it is another than the default; else None."""
    from ..config import SHIPPED_ENCODERS, Config

    found = [path.parent.name for path in last]
    default = Config.model_fields["embedding_type"].default
    return found[0] if len(found) == 1 and found[0] != default and found[0] in SHIPPED_ENCODERS else None


def _last_names(last: list[Path]) -> str | None:
    from ..util.files import read_json

    return next((str(names) for names in (read_json(path).get("names") for path in last) if names), None)


def _names_in(folders: object, exclude: object) -> str | None:
    """Return any for folders of photos of which none is named by a UUID; else None, the default."""
    from ..config import Config
    from ..photos.names import EXTENSIONS
    from ..photos.scan import has_photo_named_by_uuid

    paths = [*map(os.path.expanduser, _texts(folders))]
    patterns = Config.model_fields["exclude"].default if exclude is None else _texts(exclude)
    is_readable = bool(paths) and all(map(os.path.isdir, paths))  # otherwise the run is refused
    return "any" if is_readable and not has_photo_named_by_uuid(paths, EXTENSIONS, patterns) else None


def _texts(value: object) -> list[str]:
    """Return a text or a list of texts as a list; empty if it is neither, so that the run is refused."""
    items = value if isinstance(value, list | tuple) else [value]
    return [item for item in items if isinstance(item, str)]


def search(
    *,
    path: str | None = None,
    uuid: str | None = None,
    image: Path | None = None,
    text: str | None = None,
    n: Annotated[int, {"min": 1}] = 10,
    photos: Path | None = None,
    json: bool = False,
    html: Path | None = None,
    force: bool = False,
    collection: CollectionOptions,
) -> str:
    """Find photos similar to a photo in the collection, an image file or text.

    Give one of --path, --uuid, --image and --text. SIGLIP2 understands any text, EFFICIENTNET_LITE0 some 3,000 words.
    The command prints the similarity (cosine), path and UUID of each photo, the most similar photo first. It marks
    photos whose file is missing.

    Parameters
    ----------
    path : str, optional
        Path of a photo in the collection; its end is enough, such as the file name.
    uuid : str, optional
        UUID of a photo in the collection; a prefix is enough.
    image : Path, optional
        Image file; it need not be in the collection.
    text : str, optional
        Description of the photos to find, such as 'a red panda on a branch'.
    n : int
        Number of photos to find.
    photos : Path, optional
        Only photos of this list: paths, file names or UUIDs, one per line, or a CSV or JSON file saved from the
        globe.
    json : bool
        Print the result as JSON.
    html : Path, optional
        Also write a contact sheet to this HTML file.
    force : bool
        Let --html replace a file of another kind; images, videos and databases are never replaced.

    Examples
    --------
        crossfilter-inference search --output_embeddings_db photos.sqlite --uuid 5237ab3d
        crossfilter-inference search --output_embeddings_db photos.sqlite --image demo/photos/fish/1487d17f*.jpg --n 5
    """
    if sum(bool(query) for query in (path, uuid, image, text)) != 1:
        raise UsageError("give one of --path, --uuid, --image and --text")

    from ..search import find_path, find_uuid
    from ..search import search as find
    from ..view.contact_sheet import write_contact_sheet
    from . import outputs

    opened = _open(collection)
    sheet = _output("--html", html, outputs.HTML, collection, opened, force)
    known = find_path(opened, path) if path else find_uuid(opened, uuid) if uuid else None
    loaded = opened.load_image(str(image)) if image else None
    if known:
        query = opened.embeddings[opened.uuids.index(known)]
    else:
        query = opened.embed_image(loaded) if loaded else opened.embed_text(text or "")
    _keep(opened, photos)
    found = find(opened, query, n, without=known)
    if json:
        _print_json([photo._asdict() for photo in found])
    else:
        for photo in found:
            command.show(f"{photo.similarity:.4f}  {photo.path}{_mark(photo.missing)}  {photo.uuid}")
    if html and sheet:
        pictures = [(photo.uuid, photo.path, f"{photo.similarity:.3f}", photo.missing) for photo in found]
        groups = [("Most similar first", pictures)]
        thumbnails = opened.thumbnails([*([known] if known else []), *(photo.uuid for photo in found)])
        if known:
            original = opened.photos([known])[known]
            groups.insert(0, ("", [(known, original.path, "", opened.is_missing(original))]))
        elif image and loaded:
            groups.insert(0, ("", [("", str(image), "", False)]))
            thumbnails[""] = loaded.thumbnail
        title = f"Photos of {text}" if text else "Photos like this one"
        with outputs.reporting_errors("--html", html):
            write_contact_sheet(str(sheet), title, groups, thumbnails)
    return f"{len(found)} of {len(opened.uuids):,} photos{_look_at(html)}"


def duplicates(
    *,
    least_cosine: Annotated[float, {"min": -1, "max": 1}] = 0.6,
    similar: bool = False,
    by_cosine_alone: bool = False,
    photos: Path | None = None,
    json: bool = False,
    html: Path | None = None,
    force: bool = False,
    collection: CollectionOptions,
) -> str:
    """Find duplicates: identical files, and photos that were recompressed, resized or slightly cropped.

    The command prints groups of duplicates and the class of each: "identical files", or "same picture" (confirmed by
    comparing pixels). The largest group comes first, and in each group the best photo: the one with the most pixels,
    then the most bytes. The command leaves out photos that are missing or have changed since the last run. It deletes
    nothing.

    Parameters
    ----------
    least_cosine : float
        Minimum similarity of two photos to compare (cosine of centred embeddings). Identical files need none.
    similar : bool
        Also print groups of the class "similar": photos with similar embeddings. Use it with --least_cosine 0.8.
    by_cosine_alone : bool
        Deprecated name of --similar.
    photos : Path, optional
        Only photos of this list: paths, file names or UUIDs, one per line, or a CSV or JSON file saved from the
        globe.
    json : bool
        Print the result as JSON.
    html : Path, optional
        Also write a contact sheet of the groups to this HTML file.
    force : bool
        Let --html replace a file of another kind; images, videos and databases are never replaced.

    Examples
    --------
        crossfilter-inference duplicates --output_embeddings_db photos.sqlite --html duplicates.html
    """
    from ..duplicates import find_duplicates
    from ..util.text import counted
    from ..view.contact_sheet import write_contact_sheet
    from . import outputs

    opened = _open(collection)
    _keep(opened, photos)
    sheet = _output("--html", html, outputs.HTML, collection, opened, force)
    found = find_duplicates(opened, least_cosine, os.cpu_count() or 1, similar=similar or by_cosine_alone)
    groups = found.groups
    if json:
        _print_json([[{**asdict(photo), "class": group.kind} for photo in group.photos] for group in groups])
    else:
        for number, group in enumerate(groups, 1):
            command.show(f"group {number}: {group.kind}")
            for photo in group.photos:
                command.show(f"  {photo.path}  {_size(photo)}  {photo.uuid}")
    if html and sheet:
        sections = [
            (f"Group {number}: {group.kind}", [(photo.uuid, photo.path, _size(photo), False) for photo in group.photos])
            for number, group in enumerate(groups, 1)
        ]
        thumbnails = opened.thumbnails([photo.uuid for group in groups for photo in group.photos])
        with outputs.reporting_errors("--html", html):
            write_contact_sheet(str(sheet), f"{counted(len(groups), 'groups')} of duplicates", sections, thumbnails)
    n_photos = len({photo.uuid for group in groups for photo in group.photos})
    line = f"groups: {len(groups)}, with {n_photos} of {len(opened.uuids):,} photos"
    left_out = ", ".join(f"{n:,} {reason}" for reason, n in sorted(found.left_out.items()))
    return f"{line}; {found.n_removable} could be removed{left_out and f'; left out: {left_out}'}{_look_at(html)}"


def export(
    *,
    parquet: Path | None = None,
    npy: Path | None = None,
    atlas: Path | None = None,
    crossfilter: Path | None = None,
    previews: Path | None = None,
    photos: Path | None = None,
    force: bool = False,
    collection: CollectionOptions,
) -> str:
    """Export embeddings and map to Parquet and NumPy files, or for Crossfilter's application.

    Parameters
    ----------
    parquet : Path, optional
        Parquet file of embeddings, positions and neighbours of all photos.
    npy : Path, optional
        NumPy file of the embeddings as one array. A text file next to it (.uuids.txt) lists their UUIDs.
    atlas : Path, optional
        Parquet file for embedding-atlas. To open it, run embedding-atlas FILE --x X --y Y --neighbors NEIGHBOURS.
    crossfilter : Path, optional
        Database for Crossfilter's application. A later export replaces it, unless another program has changed it.
    previews : Path, optional
        Folder of previews for Crossfilter's application: upright JPEG files of at most 1,024 pixels on the long side.
        A later export makes only previews that are missing or out of date.
    photos : Path, optional
        Only photos of this list: paths, file names or UUIDs, one per line, or a CSV or JSON file saved from the
        globe.
    force : bool
        Replace files of another kind; images, videos and databases are never replaced.

    Examples
    --------
        crossfilter-inference export --output_embeddings_db photos.sqlite --parquet photos.parquet --npy photos.npy
    """
    if not (parquet or npy or atlas or crossfilter or previews):
        raise InputError(
            "nothing to export: give at least one of --parquet, --npy, --atlas, --crossfilter and --previews"
        )
    if (parquet or atlas) and not importlib.util.find_spec("pyarrow"):
        raise InputError(f"pyarrow, which writes Parquet files, is missing; run pip install '{COMMAND}[parquet]'")

    from ..util.text import counted
    from ..view.crossfilter import write_crossfilter
    from ..view.export import write_atlas, write_npy, write_parquet, write_uuids
    from ..view.previews import write_previews
    from . import outputs

    opened = _open(collection)
    _keep(opened, photos)
    read_map = cache(opened.read_map)
    wanted: list[tuple[str, Path | None, str, Callable[[str], None]]] = [
        ("--npy", npy, outputs.NPY, lambda file: write_npy(file, opened)),
        ("--npy", npy and npy.parent / f"{npy.stem}.uuids.txt", outputs.UUIDS, lambda file: write_uuids(file, opened)),
        ("--parquet", parquet, outputs.PARQUET, lambda file: write_parquet(file, opened, read_map())),
        ("--atlas", atlas, outputs.PARQUET, lambda file: write_atlas(file, opened, read_map())),
        ("--crossfilter", crossfilter, outputs.CROSSFILTER, lambda file: write_crossfilter(file, opened)),
    ]
    files = {}
    for option, path, kind, write in wanted:
        if path and (file := _output(option, path, kind, collection, opened, force)):
            if file in files:
                raise InputError(f"{option}: {str(path)!r} is given twice; name another file. Nothing was written")
            files[file] = option, path, write
    planned = _plan_previews(previews, collection, opened) if previews else None
    for file, (option, path, write) in files.items():
        with outputs.reporting_errors(option, path):
            write(str(file))
    done = [f"{counted(len(opened.uuids), 'photos')} in {', '.join(str(path) for _, path, _ in files.values())}"]
    if previews and planned:
        with outputs.reporting_errors("--previews", previews):
            write_previews(planned, opened, os.cpu_count() or 1)
        done = [*(done if files else []), planned.summary()]
    return "; ".join(done)


def serve(*, port: Annotated[int, {"min": 0, "max": 65535}] = 0, collection: CollectionOptions) -> str:
    """Serve the globe on this machine, with searches for any text or image.

    The command prints a link, which only works on this machine. On the globe, a search accepts any text that the
    encoder understands, and images that you drop on it. Photos that browsers cannot show, such as HEIC, TIFF and RAW,
    are converted. Collections of a million photos are shown in full. Ctrl-C ends the command.

    Parameters
    ----------
    port : int
        Port; 0 chooses a free one.

    Examples
    --------
        crossfilter-inference serve --output_embeddings_db photos.sqlite
    """
    try:
        from ..serve import Site
        from ..serve import serve as serve_site
    except ModuleNotFoundError as error:
        raise InputError(
            f"not installed: {str(error.name).partition('.')[0]}; run pip install '{COMMAND}[serve]'"
        ) from None

    serve_site(
        Site(lambda: _open(collection)),
        port,
        when_ready=lambda link: command.show(f"look at: {link} (press Ctrl-C to stop)"),
    )
    return "stopped"


def verify(
    *, input_dir: list[str] | None = None, sample: Annotated[int, {"min": 0}] = 8, collection: CollectionOptions
) -> str:
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
    config, backends = _find_config(collection, input_dir), _own_backends(collection)
    for check in run_checks(config, n_sample=sample, n_threads=os.cpu_count() or 1, backends=backends):
        command.show(check)
        checks.append(check)
    command.show(closing_line(checks))
    sys.exit(int(any(check.state == "FAILED" for check in checks)))


def report(file: Path = Path("report.html"), *, force: bool = False, collection: CollectionOptions) -> str:
    """Write a report on the collection as one HTML file.

    The report is for someone who did not run the workflow. It shows the map, the outcome of every file, failures, map
    quality, times and versions. The command first brings the collection up to date. If more photos fail than
    max_failed_share allows, it still writes the report, then exits with code 3.

    Parameters
    ----------
    file : Path
        HTML file to write; if its name ends in .zip, a ZIP file.
    force : bool
        Replace a file of another kind; images, videos and databases are never replaced.

    Examples
    --------
        crossfilter-inference report --output_embeddings_db photos.sqlite
    """
    from ..db.state import state_folder
    from ..encoders.registry import check_named
    from ..run.finish import check_failures
    from ..shards.plan import read_plan
    from . import outputs
    from .workflow import snakemake_command

    kinds = {".html": outputs.HTML, ".zip": outputs.ZIP}
    if file.suffix not in kinds:
        raise InputError(f"{str(file)!r} is not a report file; use a name that ends in .html or .zip")
    config = _find_config(collection)
    protected = outputs.protected_by(config.output_embeddings_db, config)
    path = outputs.check_output("report", file, kinds[file.suffix], protected, force=force)
    check_named(config.embedding_type, config.encoder.backend, _own_backends(collection))

    def summarise(*options: str, is_quiet: bool = False) -> None:
        command_line = snakemake_command([], config.model_dump(), ["summarise", *options])
        output = subprocess.PIPE if is_quiet else None
        done = subprocess.run(command_line, check=False, stdout=output, stderr=output and subprocess.STDOUT)
        if done.returncode not in (0, TooManyFailed.exit_code):
            sys.stderr.buffer.write(done.stdout or b"")
            sys.exit(done.returncode)

    summarise()
    with outputs.reporting_errors("report", file):
        path.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            summarise("--report", str(Path(folder, path.name)), is_quiet=True)
            os.replace(Path(folder, path.name), path)
    logger.info("%s%s", file, _look_at(file))
    state = Path(state_folder(config.output_embeddings_db), config.embedding_type)
    check_failures(str(state), read_plan(state / "plan.tsv")[0], config.max_failed_share)
    return ""


COMMANDS = (run, search, duplicates, export, serve, verify, report)


def main() -> None:
    """Run `crossfilter-inference`."""
    os.environ[INSTALLED] = "1"
    command.run(COMMANDS, about="Embed a folder of photos, map them on a globe, search them, and find duplicates.")


def _open(options: CollectionOptions) -> "Collection":
    from ..collection import Collection

    if options.output_embeddings_db and not (is_script() or options.configfile or _last_config(options).exists()):
        return Collection(options.output_embeddings_db, options.embedding_type, device=options.device or "auto")
    config = _find_config(options)
    return Collection(
        config.output_embeddings_db,
        config.embedding_type,
        device=config.device,
        labels=config.labels,
        backends=_own_backends(options),
    )


def _keep(opened: "Collection", photos: Path | None) -> None:
    """Leave out the photos that are not in a list, if there is one."""
    if photos:
        from ..search import read_photo_list

        opened.keep(read_photo_list(opened, photos))


def _find_config(options: CollectionOptions, input_dir: list[str] | None = None) -> "Config":
    """Read the configuration of a collection: settings of the last run, overridden by files and options."""
    from ..config import read_config
    from ..project import project_folder
    from ..util.files import read_json

    files = [project_folder() / "config.yaml"] if is_script() else []
    embedding_type = options.embedding_type
    if not files and (options.output_embeddings_db or os.path.exists(_given(options)[0])):
        last = _last_config(options)
        embedding_type = last.parent.name
        if last.exists():
            read_json(last, embedding_type=str)  # another message than for a file of the user's
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


def _own_backends(options: CollectionOptions) -> list[str]:
    """List the backends that the user's configuration names; the settings of the last run may come from a stranger."""
    from ..config import read_config_file
    from ..project import project_folder

    files = [project_folder() / "config.yaml"] if is_script() else []
    named = []
    for path in files + (options.configfile or []):
        encoders = read_config_file(path).get("encoders")
        for encoder in encoders.values() if isinstance(encoders, dict) else ():
            backend = encoder.get("backend") if isinstance(encoder, dict) else None
            named += [os.path.expanduser(backend)] if isinstance(backend, str) else []
    return named


def _given(options: CollectionOptions) -> tuple[str, str]:
    """Return the database and the embedding type that options or files name; empty if none does."""
    from ..config import merge_settings

    named = {"output_embeddings_db": options.output_embeddings_db, "embedding_type": options.embedding_type}
    given = merge_settings(options.configfile or [], named)
    return os.path.expanduser(str(given.get("output_embeddings_db") or "")), str(given.get("embedding_type") or "")


def _last_config(options: CollectionOptions) -> Path:
    """Find the settings of the last run on a database, for the embedding type that the options or files name."""
    from ..collection import only_embedding_type
    from ..config import Config
    from ..db.state import state_folder

    database, embedding_type = _given(options)
    if not embedding_type and options.output_embeddings_db:
        embedding_type = only_embedding_type(database)
    elif not embedding_type:
        embedding_type = _last_type(_last_configs(database)) or Config.model_fields["embedding_type"].default
    return Path(state_folder(database), embedding_type, "config.json")


def _output(
    option: str, path: Path | None, kind: str, options: CollectionOptions, photos: "Collection", force: bool
) -> Path | None:
    """Check that a command may write a file; return its real path, or None without a path."""
    from .outputs import check_output

    return check_output(option, path, kind, _protected(options, photos), force=force) if path else None


def _protected(options: CollectionOptions, photos: "Collection") -> "Protected":
    from .outputs import protected_by

    is_configured = is_script() or options.configfile
    return protected_by(photos.database, _find_config(options) if is_configured else None)


def _plan_previews(folder: Path, options: CollectionOptions, photos: "Collection") -> "Previews":
    """Check that a command may write previews, and find out which."""
    from ..view.previews import plan_previews, subfolders
    from .outputs import check_folder, reporting_errors

    real = check_folder("--previews", folder, subfolders(photos.uuids), _protected(options, photos))
    with reporting_errors("--previews", folder):
        return plan_previews(str(real), photos)


def _mark(is_missing: bool) -> str:
    return "  (missing)" if is_missing else ""


def _look_at(page: Path | None) -> str:
    return f"; look at: {page.absolute().as_uri()}" if page else ""


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _size(photo: "Photo") -> str:
    if not photo.width or not photo.size:
        return "size unknown"
    return f"{photo.width} x {photo.height}, {max(photo.size // 1000, 1):,} kB"
