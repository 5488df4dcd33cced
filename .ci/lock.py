"""Write the installed versions to the lock files.

`requirements.lock` is for users: the dependencies of pyproject.toml with the extras `parquet` and `serve`, and all that
they need.
`requirements-<group>.lock` holds what a dependency group needs besides.
"""

import re
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
_CUDA = re.compile("nvidia-|cuda-|triton")  # only PyTorch for GPUs needs these, and pins them itself


def main() -> None:
    for group in ("", *read_pyproject()["dependency-groups"]):
        path = lock_path(group)
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")] if path.exists() else []
        pins = [f"{name}=={version(name).split('+')[0]}" for name in sorted(locked(group))]
        path.write_text("\n".join([*comment, *pins, ""]))


def read_pyproject() -> dict[str, Any]:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def lock_path(group: str) -> Path:
    """Name the lock file of a dependency group; an empty name stands for the users."""
    return PROJECT / (f"requirements-{group}.lock" if group else "requirements.lock")


def locked(group: str) -> set[str]:
    """Name the packages of a lock file, from pyproject.toml and the metadata of installed packages."""
    project, groups = read_pyproject()["project"], read_pyproject()["dependency-groups"]
    extras = project["optional-dependencies"]
    users = needed(project["dependencies"] + extras["parquet"] + extras["serve"])
    return needed(groups[group]) - users if group else users


def needed(requirements: list[str]) -> set[str]:
    """Name the packages that requirements need, directly or not, on this computer."""
    todo, found = [Requirement(text) for text in requirements], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in found or _CUDA.match(name):
                continue
            found.add((name, extra))
            todo += [
                one
                for one in map(Requirement, distribution(name).requires or [])
                if one.marker is None or one.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


if __name__ == "__main__":
    main()
