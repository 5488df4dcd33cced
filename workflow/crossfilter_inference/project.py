"""Where the project's other files are: Snakefile, rules, scripts, environments, profiles and the configuration."""

from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent


def project_folder() -> Path:
    """Find the folder that holds the Snakefile.

    A wheel contains the files inside the package (`pyproject.toml`); in a clone they are around it.
    """
    inside = _LIBRARY / "_project"
    return inside if inside.is_dir() else _LIBRARY.parent.parent
