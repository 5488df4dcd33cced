"""Start the workflow: turn options and configuration files into one Snakemake command that works in any folder."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from ..config import DuplicateKey, UniqueKeys, check_config, merge_settings, update
from ..db.state import state_folder
from ..errors import InputError
from ..photos.scan import check_folder
from ..project import project_folder
from ..run.database import check_database_path
from ..util.text import yaml_text
from .outputs import written_by_snakemake


def snakemake_command(
    files: Iterable[str | Path],
    changes: Mapping[str, object],
    options: Sequence[str] = (),
    cores: str = "all",
    *,
    verbose: bool = False,
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda given: {},
) -> list[str]:
    """Return the command that runs the workflow.

    Snakemake's own folder, `.snakemake`, is in the state folder next to the database, not in the current folder.

    Parameters
    ----------
    files : iterable of path
        Configuration files; later ones override earlier ones.
    changes : mapping
        Keys that override the files; None leaves a key as it is. Paths are relative to the current folder.
    options : sequence of str
        Options for Snakemake. `--config` and `--configfile` override files and changes. Files to write are relative to
        the current folder.
    cores : str
        A number, or all.
    verbose : bool
        Whether to print a line for every job, and what it reports.
    defaults : function
        From the settings that files, changes and options give, not checked, to values for others.

    Raises
    ------
    InputError
        If the configuration is not valid, or a folder of photos cannot be read.
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config", "-C", nargs="*", action="extend", default=[])
    reader.add_argument("--configfile", "--configfiles", nargs="+", action="extend", default=[])
    found, options = reader.parse_known_args(options)
    written, options = written_by_snakemake(options)
    verbose = verbose or not {"-n", "--dry-run", "--dryrun"}.isdisjoint(options)  # its jobs are what one wants to see
    merged = {key: value for key, value in changes.items() if value is not None}
    for entry in found.config:
        update(merged, _parse_entry(entry))
    given = merge_settings([*files, *found.configfile], merged)
    config = check_config({**defaults(given), **given}).with_absolute_paths()
    for folder in config.input_dir:  # before anything is written
        check_folder(folder)
    check_database_path(config.output_embeddings_db, config.input_dir)
    return [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(project_folder() / "Snakefile")),
        *("--directory", state_folder(config.output_embeddings_db)),
        *_profile(verbose=verbose),
        *("--cores", cores),
        *options,
        *(f"{option}={os.path.abspath(path)}" for option, path in written.items()),
        "--config",
        *(f"{key}={yaml_text(value)}" for key, value in config.model_dump().items()),
    ]


def run_workflow(
    files: Iterable[str | Path],
    changes: Mapping[str, object],
    options: Sequence[str] = (),
    cores: str = "all",
    *,
    verbose: bool = False,
    defaults: Callable[[Mapping[str, object]], Mapping[str, object]] = lambda given: {},
) -> NoReturn:
    """Replace this process by the command that `snakemake_command` returns for the same arguments."""
    command = snakemake_command(files, changes, options, cores, verbose=verbose, defaults=defaults)
    os.execv(command[0], command)


def _profile(*, verbose: bool) -> list[str]:
    """Return the options of the default profile; as a profile, Snakemake would name it in its first line."""
    profile = yaml.safe_load((project_folder() / "profiles" / "default" / "config.yaml").read_text())
    if not verbose:
        profile["quiet"] += ["rules", "progress"]
    options = ["--workflow-profile", "none"]
    for name, value in profile.items():
        options.append(f"--{name}")
        options += [] if value is True else [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return options


class UniqueBaseLoader(UniqueKeys, yaml.BaseLoader):
    """Load every value as text."""


def _parse_entry(entry: str) -> dict[str, object]:
    """Read `key=value` as Snakemake does; numbers stay text here."""
    key, equals, value = entry.partition("=")
    if not equals:
        raise InputError(f"--config: {entry!r} is not KEY=VALUE; write, for example, --config batch_size=16")
    try:
        return {key: yaml.load(value, UniqueBaseLoader)}
    except DuplicateKey as error:
        raise InputError(f"--config: {entry!r} {error}; remove one of them. Nothing was changed") from None
    except yaml.YAMLError:
        return {key: value}
