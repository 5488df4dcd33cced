"""Run the workflow with the original tool's command line.

If this Python lacks Snakemake, the script restarts itself with the one in `.venv`.
"""

import importlib.util
import os
import sys

import _library

_PYTHON = _library.PROJECT / ".venv" / "bin" / "python"


def main(
    *snakemake_options: str,
    input_dir: str,
    output_embeddings_db: str,
    embedding_type: str = "SIGLIP2",
    model: str | None = None,
    batch_size: int = 10,
    recompute_existing_embeddings: bool | None = None,
    reproject_umap_embeddings: bool = True,
    cores: str = "all",
) -> str:
    r"""Embed the photos of a folder into a database, and map them.

    This command takes the options of the original tool, with the same defaults, and --model. All other settings come
    from config.yaml. Options after -- go to Snakemake.

    Parameters
    ----------
    *snakemake_options : str
        Options for Snakemake; `--config` overrides the options above.
    input_dir : str
        Folder of `<uuid>.jpg` photos; subfolders are included.
    output_embeddings_db : str
        SQLite database to create or update.
    embedding_type : str
        Encoder to use.
    model : str, optional
        Its checkpoint: a name on the Hugging Face Hub, or a folder. The original tool's model is
        google/siglip-so400m-patch14-384. Default: as in config.yaml.
    batch_size : int
        Photos per call of the encoder.
    recompute_existing_embeddings : bool, optional
        Embed every photo again. Default: no.
    reproject_umap_embeddings : bool
        Update the map after embedding.
    cores : str
        CPU cores to use: a number, or all.

    Examples
    --------
        python scripts/compute_embeddings.py --embedding_type EFFICIENTNET_LITE0 --input_dir demo/photos \
            --output_embeddings_db photos.sqlite
    """
    from crossfilter_inference.cli.workflow import run_workflow

    changes = {
        "input_dir": input_dir,
        "output_embeddings_db": output_embeddings_db,
        "embedding_type": embedding_type,
        "batch_size": batch_size,
        "recompute_existing_embeddings": bool(recompute_existing_embeddings),
        "reproject_umap_embeddings": reproject_umap_embeddings,
        "encoders": {embedding_type: {"model": model}} if model else None,
    }
    run_workflow([_library.PROJECT / "config.yaml"], changes, snakemake_options, cores)


if __name__ == "__main__":
    if not importlib.util.find_spec("snakemake"):
        if not _PYTHON.exists():
            sys.exit(f"{sys.executable} has no Snakemake; run `make run` in {str(_library.PROJECT)!r} once")
        os.execv(_PYTHON, [str(_PYTHON), *sys.argv])

    from crossfilter_inference.cli.command import run

    run([main])
