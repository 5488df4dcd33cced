"""What the report tells besides the map: fates of files, failures, quality, time, provenance; one HTML table each."""

import csv
import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa

from .connections import reading
from .database import Tables, read_provenance
from .files import printable, read_json, write_text
from .plan import read_plan

NAMES = ("fates", "failures", "quality", "times", "provenance")
_QUALITY = (
    *("trustworthiness", "neighbours_kept", "label_purity", "sphere_share", "plane"),
    *("action", "n_images", "n_new", "n_gone", "drift_degrees"),
    *("n_neighbors", "min_dist", "radius", "random_state"),
)
_MOST_ROWS = 1_000  # of a table that people read
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:24px;color:#1d2731;background:#fff}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:4px 18px 4px 0;border-bottom:1px solid #dbe2e8;"
    "overflow-wrap:anywhere;vertical-align:top}td.number{text-align:right;font-variant-numeric:tabular-nums}"
)
Row = tuple[object, ...]


def write_summary(database: str, folder: str, output: str) -> None:
    """Write a table for each of `NAMES`, as `<output>/<name>.html`.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    output : str
        Folder.
    """
    embedding_type, state = Path(folder).name, Path(folder)
    with reading(database) as connection:
        tables = {
            "fates": (("Fate", "Files"), _fates(connection, embedding_type, state)),
            "failures": (("Photo", "Reason", "Message"), _failures(connection, embedding_type, state)),
            "quality": (("Figure", "Value"), _quality(state)),
            "times": (
                ("Stage", "Jobs", "Seconds", "Photos/s", "Most memory, MB"),
                _times(connection, embedding_type, state),
            ),
            "provenance": (("What", "Value"), sorted(read_provenance(connection, embedding_type).items())),
        }
        for name, (header, rows) in tables.items():
            write_text(Path(output, f"{name}.html"), _table(header, rows))


def _fates(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[Row]:
    planned, rejected = read_plan(state / "plan.tsv")
    tables = Tables(embedding_type)
    failed = set(connection.scalars(sa.select(tables.failures.c.UUID)))
    embedded = set(connection.scalars(sa.select(tables.embeddings.c.UUID)))
    present = {image.uuid for image in planned}
    yield "found", len(planned) + len(rejected)
    yield "embedded", len(present & embedded)
    yield "failed", len(present & failed)
    for reason, count in sorted(Counter(file.reason for file in rejected).items()):
        yield f"rejected: {reason}", count
    if gone := len(embedded - present):
        yield "in the database, but gone from the folders", gone


def _failures(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[Row]:
    failures = Tables(embedding_type).failures
    columns = (failures.c.PATH, failures.c.REASON, failures.c.MESSAGE)
    yield from connection.execute(sa.select(*columns).order_by(failures.c.PATH))
    for path, reason in read_plan(state / "plan.tsv")[1]:
        yield path, "rejected", reason


def _quality(state: Path) -> Iterator[Row]:
    path = state / "map_quality.json"
    figures = read_json(path) if path.exists() else {}
    yield from ((key, figures[key]) for key in _QUALITY if figures.get(key) is not None)


def _times(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[Row]:
    n_photos = connection.scalar(sa.select(sa.func.count()).select_from(Tables(embedding_type).embeddings))
    for folder in sorted((state / "benchmarks").glob("*")):
        rows = [row for path in folder.glob("*.tsv") for row in _measured(path)]
        seconds = sum(float(row["s"]) for row in rows)
        memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
        rate = round(n_photos / seconds, 1) if seconds and folder.name == "embed_shard" else ""
        yield folder.name, len(rows), round(seconds, 1), rate, round(max(memory)) if memory else ""


def _measured(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _table(header: tuple[str, ...], rows: Iterable[Row]) -> str:
    rows = list(rows)
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in header) + "</tr>"]
    lines += ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows[:_MOST_ROWS]]
    more = f"<p>and {len(rows) - _MOST_ROWS:,} more, in the database</p>" if len(rows) > _MOST_ROWS else ""
    none = "" if rows else "<p>none</p>"
    body = "\n".join(lines)
    return f'<!doctype html>\n<meta charset="utf-8">\n<style>{_STYLE}</style>\n<table>\n{body}\n</table>{more}{none}\n'


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return f"<td>{html.escape(printable(text))}</td>"
    return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f'<td class="number">{value:,.4g}</td>'
