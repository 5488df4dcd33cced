"""A table of labels: a CSV or TSV file with the columns UUID and LABEL."""

import csv
from pathlib import Path

from ..errors import InputError


def read_labels(path: str, uuids: list[str]) -> list[str | None]:
    """Read the labels of some photos.

    Parameters
    ----------
    path : str
        A table separated by tabs if the name ends in .tsv, else by commas. UUIDs may have any spelling.
    uuids : list of str

    Returns
    -------
    list of str or None
        The label of each photo; None if the table has none.

    Raises
    ------
    InputError
        If the file cannot be read or a column is missing.
    """
    labels = _read_table(path)
    return [labels.get(_normalised(uuid)) for uuid in uuids]


def _read_table(path: str) -> dict[str, str]:
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.endswith(".tsv") else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"labels: cannot read {path!r} ({error}); give a CSV or TSV file with the columns UUID and LABEL"
        ) from None
    names = [name.strip().upper() for name in rows[0]] if rows else []
    if not {"UUID", "LABEL"} <= {*names}:
        raise InputError(
            f"labels: {path!r} has the columns {', '.join(names) or '(none)'}; add the columns UUID and LABEL"
        )
    uuid, label = names.index("UUID"), names.index("LABEL")
    return {
        _normalised(row[uuid]): row[label].strip()
        for row in rows[1:]
        if len(row) > max(uuid, label) and row[label].strip()
    }


def _normalised(uuid: str) -> str:
    """Spell a UUID as 32 hexadecimal digits in lower case."""
    return uuid.strip().replace("-", "").lower()
