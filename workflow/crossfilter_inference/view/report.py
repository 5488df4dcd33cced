"""Write the first page of the report, and an HTML table for each of `NAMES`."""

import base64
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa
from PIL import Image

from ..db.connect import reading
from ..db.tables import Tables, read_provenance
from ..photos.failures import advice
from ..shards.plan import read_plan
from ..util.files import damaged, read_benchmark, read_json, write_text
from ..util.text import Html, counted, rst

logger = logging.getLogger(__name__)

NAMES = ("outcomes", "failures", "quality", "times", "provenance")
_QUALITY = (
    *("trustworthiness", "neighbours_kept", "label_purity", "sphere_share", "plane"),
    *("action", "n_images", "n_new", "n_gone", "drift_degrees"),
    *("n_neighbors", "min_dist", "radius", "repulsion", "random_state"),
)
_ON_FIRST_PAGE = ("trustworthiness", "neighbours_kept", "label_purity", "drift_degrees")
_MOST_ROWS = 1_000  # per table
_PICTURE_WIDTH = 1_000  # pixels
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:24px;color:#1d2731;background:#fff}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:4px 18px 4px 0;border-bottom:1px solid #dbe2e8;"
    "vertical-align:top}th{white-space:nowrap}"
    "td:first-child{min-width:18em;overflow-wrap:anywhere}td:nth-child(3){min-width:14em;overflow-wrap:anywhere}"
    "td.number{min-width:0;text-align:right;font-variant-numeric:tabular-nums}"
)
_Row = tuple[object, ...]
_PAGE = Html('<!doctype html>\n<meta charset="utf-8">\n<style>$style</style>\n$parts\n')


def write_summary(database: str, folder: str, output: str, introduction: str) -> None:
    """Write a table for each of `NAMES`, as `<output>/<name>.html`, and `<output>/first_page.rst`.

    Parameters
    ----------
    database : str
        Path.
    folder : str
        State folder of the embedding type.
    output : str
        Folder to write to.
    introduction : str
        Path of a reStructuredText file, the beginning of the first page.
    """
    embedding_type, state = Path(folder).name, Path(folder)
    with reading(database) as connection:
        tables: dict[str, list[_Row]] = {
            "outcomes": [("Outcome", "Files"), *_outcomes(connection, embedding_type, state)],
            "failures": [("File", "Reason", "Message", "What to do"), *_failures(connection, embedding_type, state)],
            "quality": [("Figure", "Value"), *_quality(state)],
            "times": [
                ("Stage", "Jobs", "Seconds", "Photos/s", "Peak memory (MB)"),
                *_times(connection, embedding_type, state),
            ],
            "provenance": [("Key", "Value"), *sorted(read_provenance(connection, embedding_type).items())],
        }
    for name in NAMES:
        write_text(Path(output, f"{name}.html"), _page(*tables[name]))
    figures: list[_Row] = [
        *(("photos", path) for path in read_json(state / "config.json", input_dir=list)["input_dir"]),
        ("database", database),
        ("embedding_type", embedding_type),
        *tables["outcomes"][1:],
        *(row for row in tables["quality"][1:] if row[0] in _ON_FIRST_PAGE),
    ]
    text = Path(introduction).read_text("utf-8")
    write_text(Path(output, "first_page.rst"), f"{text}\n{rst(Html.of([_picture(state), _table(figures)]))}")


def _picture(state: Path) -> Html:
    """Return the map as an HTML image; empty if there is no map."""
    path, jpeg = state / "map.png", io.BytesIO()
    if not path.exists():
        return Html()
    try:
        with Image.open(path) as image:
            size = (_PICTURE_WIDTH, round(image.height * _PICTURE_WIDTH / image.width))
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(jpeg, "JPEG", quality=85)
    except Exception:  # a damaged file can raise anything
        raise damaged(path) from None
    lines = base64.encodebytes(jpeg.getvalue()).decode()  # in short lines, because docutils refuses long ones
    return Html('<img alt="the map" src="data:image/jpeg;base64,\n$lines">\n').fill(lines=Html(lines))


def _outcomes(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[_Row]:
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
    if n_missing := len(embedded - present):
        yield "missing from the folders, kept in the database", n_missing


def _failures(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[_Row]:
    failures = Tables(embedding_type).failures
    columns = (failures.c.PATH, failures.c.REASON, failures.c.MESSAGE)
    for path, reason, message in connection.execute(sa.select(*columns).order_by(failures.c.PATH)).tuples():
        yield path, reason, message, advice(reason)
    for path, reason in read_plan(state / "plan.tsv")[1]:
        yield path, "rejected", reason, ""


def _quality(state: Path) -> Iterator[_Row]:
    path = state / "map_quality.json"
    figures = read_json(path) if path.exists() else {}
    yield from ((key, figures[key]) for key in _QUALITY if figures.get(key) is not None)


def _times(connection: sa.Connection, embedding_type: str, state: Path) -> Iterator[_Row]:
    n_photos = connection.scalars(sa.select(sa.func.count()).select_from(Tables(embedding_type).embeddings)).one()
    for folder in sorted((state / "benchmarks").glob("*")):
        found = {path: read_benchmark(path) for path in sorted(folder.glob("*.tsv"))}
        rows = [row for row in found.values() if row is not None]
        if unreadable := [path for path, row in found.items() if row is None]:
            logger.warning(
                "%s left out, because damaged: %s; delete them, and the next run measures again",
                counted(len(unreadable), "benchmark files"),
                ", ".join(map(str, unreadable)),
            )
        seconds = sum(row["s"] for row in rows)
        memory = max((row["max_rss"] for row in rows), default=0)
        rate = round(n_photos / seconds, 1) if seconds and folder.name == "embed_shard" else ""
        yield folder.name, len(rows), round(seconds, 1), rate, round(memory) or ""


def _page(header: _Row, *rows: _Row) -> Html:
    parts = [_table(rows[:_MOST_ROWS], header)]
    if len(rows) > _MOST_ROWS:
        parts.append(Html("<p>$rows not shown</p>").fill(rows=counted(len(rows) - _MOST_ROWS, "more rows")))
    if not rows:
        parts.append(Html("<p>none</p>"))
    return _PAGE.fill(style=Html(_STYLE), parts=Html.of(parts))


def _table(rows: Sequence[_Row], header: _Row = ()) -> Html:
    lines = [Html.of(Html("<th>$name</th>").fill(name=name) for name in header)] if header else []
    lines += [Html.of(map(_cell, row)) for row in rows]
    return Html("<table>\n$lines\n</table>").fill(
        lines=Html.of((Html("<tr>$line</tr>").fill(line=line) for line in lines), "\n")
    )


def _cell(value: object) -> Html:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return Html("<td>$text</td>").fill(text=text)
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return Html('<td class="number">$number</td>').fill(number=number)
