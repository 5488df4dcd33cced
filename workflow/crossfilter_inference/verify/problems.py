"""Problems that a check finds, and the fix for each."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..util.text import counted, printable

_N_EXAMPLES = 3


class Problems:
    """Count the problems of each kind, keep the first examples, and name the fix."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[tuple[str, str]]] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, things: str, fault: str, example: object, fix: str) -> None:
        """Count one problem.

        Parameters
        ----------
        things : str
            The affected things, in the plural: "rows".
        fault : str
            Their fault: "not finite".
        example : object
            The name of one of them.
        fix : str
            Imperative.
        """
        kind = things, fault
        self._counts.setdefault(fix, Counter())[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _N_EXAMPLES:
            examples.append(printable(str(example)))

    def check(self) -> None:
        """Raise an error that lists every problem and its fix.

        Raises
        ------
        InputError
            If a problem was added.
        """
        if self._counts:
            raise InputError("; ".join(map(self._sentence, self._counts)))

    def _sentence(self, fix: str) -> str:
        kinds = []
        for (things, fault), n in self._counts[fix].items():
            examples = self._examples[things, fault]
            kinds.append(f"{counted(n, things)} {fault} ({', '.join(examples)}{', ...' if n > len(examples) else ''})")
        return f"{', '.join(kinds)}: {fix}"


def delete_and_run(*paths: Path) -> str:
    """Return the fix for files in the state folder that the next run recreates."""
    return f"delete {' and '.join(repr(str(path)) for path in paths)} and run the workflow"


@contextmanager
def reading_file(path: Path) -> Iterator[None]:
    """Name the fix if a file that is read in this block is missing or damaged.

    Raises
    ------
    InputError
        If it is.
    """
    try:
        yield
    except (FileNotFoundError, InputError):
        raise InputError(f"{str(path)!r} is missing or damaged: {delete_and_run(path)}") from None


def is_outdated(output: Path, source: Path) -> bool:
    """Return whether the next run updates `output`, because an interrupted run did not; judged as Snakemake does."""
    if not (output.exists() and source.exists()):
        return True
    return output.stat().st_mtime_ns < source.stat().st_mtime_ns
