"""The state folder of a database.

The state of `results/photos.sqlite` is in `results/photos/`. If the name of a database does not end in `.sqlite`, its
state folder is the whole name plus `.state`. So no two databases share a state folder.
"""

from pathlib import Path


def state_folder(database: str) -> str:
    """Return the folder that holds the state of a database."""
    stem = database.removesuffix(".sqlite")
    return stem if stem != database and Path(stem).name else f"{database}.state"


def holds_state(folder: Path) -> bool:
    """Return whether a folder looks like the state of a database, which may be missing."""
    files = ("plan.tsv", "encoder.json", "embeddings.json")
    return any((shards.parent / name).exists() for shards in folder.glob("*/shards") for name in files)


def is_state_folder(folder: Path) -> bool:
    """Return whether a folder holds the state of some database: that of a run, or one whose database exists."""
    names = (f"{folder}.sqlite", str(folder).removesuffix(".state"))
    is_used = (folder / ".lock").is_file() or any(Path(name).is_file() for name in names)
    return is_used and holds_state(folder)
