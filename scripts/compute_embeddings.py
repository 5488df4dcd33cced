r"""The original tool's command: embed a folder of <uuid>.jpg photos into a database, and map them.

It takes the original's options, with the original's defaults, and runs the workflow with them, from any folder, on
any folder, into any database. Everything else is as config.yaml says. What follows `--` goes to Snakemake.

Example:
    python scripts/compute_embeddings.py --embedding_type EFFICIENTNET_LITE0 --input_dir demo/photos \
        --output_embeddings_db photos.sqlite
"""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

import _command

PROJECT = Path(__file__).resolve().parent.parent


def snakemake_command(arguments: argparse.Namespace) -> list[str]:
    """Translate the original's options into a run of the workflow."""
    config = {
        "embedding_type": arguments.embedding_type,
        "input_dir": os.path.abspath(arguments.input_dir),
        "output_embeddings_db": os.path.abspath(arguments.output_embeddings_db),
        "batch_size": arguments.batch_size,
        "recompute_existing_embeddings": arguments.recompute_existing_embeddings,
        "reproject_umap_embeddings": arguments.reproject_umap_embeddings,
    }
    return [
        *(_python(), "-m", "snakemake"),
        *("--snakefile", str(PROJECT / "Snakefile")),
        *("--directory", str(PROJECT)),
        *("--cores", arguments.cores),
        *arguments.snakemake_options,
        *("--config", *(f"{key}={json.dumps(value)}" for key, value in config.items())),
    ]


def _python() -> str:
    """Choose the Python that has Snakemake: this one, or the one that `make` has set up."""
    if importlib.util.find_spec("snakemake"):
        return sys.executable
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{sys.executable} has no Snakemake; run `make run` in {str(PROJECT)!r} once, which sets it up")
    return str(python)


def parse(command_line: list[str]) -> argparse.Namespace:
    """Read the options."""
    options = _command.parser(__doc__)
    options.add_argument("--embedding_type", default="SIGLIP2", help="which encoder (%(default)s)")
    options.add_argument("--input_dir", required=True, help="folder of <uuid>.jpg photos")
    options.add_argument("--output_embeddings_db", required=True, help="SQLite database")
    options.add_argument("--batch_size", type=int, default=10, help="photos per call of the encoder (%(default)s)")
    options.add_argument(
        "--recompute_existing_embeddings",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="embed every photo again",
    )
    options.add_argument(
        "--reproject_umap_embeddings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make the map of all photos after embedding",
    )
    options.add_argument("--cores", default="all", help="cores to use (%(default)s)")
    options.add_argument("snakemake_options", nargs="*", metavar="-- ...", help="options for Snakemake")
    return options.parse_args(command_line)


if __name__ == "__main__":
    command = snakemake_command(parse(sys.argv[1:]))
    os.execv(command[0], command)
