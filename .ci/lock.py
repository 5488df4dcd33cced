"""Write the installed versions to the lock files: `requirements.lock` for users, `requirements-<group>.lock` for the rest.

`requirements.lock` holds the dependencies of pyproject.toml with the extra `parquet`, and everything that these need. Each
other file holds what its dependency group needs besides.
"""

import re
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent
_CUDA = re.compile("nvidia-|cuda-|triton")  # only PyTorch for GPUs needs these, and pins them itself


def main() -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    for path, names in lock_contents(pyproject).items():
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")] if path.exists() else []
        pins = [f"{name}=={version(name).split('+')[0]}" for name in sorted(names)]
        path.write_text("\n".join([*comment, *pins, ""]))


def lock_contents(pyproject: dict) -> dict[Path, set[str]]:
    """Name the packages of each lock file, as pyproject.toml and the metadata of installed packages say."""
    project = pyproject["project"]
    users = needed(project["dependencies"] + project["optional-dependencies"]["parquet"])
    locks = {PROJECT / "requirements.lock": users}
    for group, requirements in pyproject["dependency-groups"].items():
        locks[PROJECT / f"requirements-{group}.lock"] = needed(requirements) - users
    return locks


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
