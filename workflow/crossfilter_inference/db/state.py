"""Where the state of a database lies.

Everything that belongs to `results/photos.sqlite` lies in `results/photos/`; a database whose name does not
end in `.sqlite` has its state in the folder of its whole name plus `.state`, so that no two databases share one.
"""

from pathlib import Path


def state_folder(database: str) -> str:
    """Return the folder that holds the state of a database."""
    stem = database.removesuffix(".sqlite")
    return stem if stem != database and Path(stem).name else f"{database}.state"
