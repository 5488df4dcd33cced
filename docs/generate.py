"""Generate files from the code: schema and reference of the configuration, columns of the tables.

`make generated` renews them; `make lint` checks them (`--check`).
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from crossfilter_inference.config import Config, EncoderSettings, PageSettings, Section, UmapSettings
from crossfilter_inference.db.tables import Tables

PROJECT = Path(__file__).resolve().parent.parent

_INTRODUCTION = """# Configuration

This page lists every key of the configuration. If a key is misspelt or a value is not allowed, the run stops with a
one-line error before anything changes.

Put the keys that you change into a file, such as `mine.yaml`, and add `--configfile mine.yaml` to the command. To
change a key for one run, add `--config batch_size=8`; for a key of a section, `--config 'umap={n_neighbors: 30}'`. With
`crossfilter-inference run`, put `--config` after `--`. Paths are relative to the folder in which you run the command.

`crossfilter-inference` and `snakemake` treat omitted keys differently:

- `crossfilter-inference run` gives them the defaults on this page, but keeps the `names` and the `embedding_type` of
  the last run. The other commands use the settings of the last run. None of them reads `config.yaml`.
- `snakemake` takes them from `config.yaml`, which is set up for the demo: its photos, its database and its small
  encoder. So name your own `input_dir`, `output_embeddings_db` and `embedding_type`.

A changed encoder causes every photo to be [embedded again](encoders.md), and a changed setting under `umap` can cause a
[new map](map.md#when-photos-are-added). Changing `batch_size`, `device` or `--cores` recomputes nothing.
"""
_CLOSING = """`SIGLIP2` and `EFFICIENTNET_LITE0` are always configured. Every encoder has its own tables.
[encoders.md](encoders.md) shows how to add one.
"""


def schema() -> str:
    """Return the JSON schema of the configuration, as YAML for editors."""
    text = yaml.safe_dump(_without_titles(Config.model_json_schema()), sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by docs/generate.py from workflow/crossfilter_inference/config.py: make generated\n{text}"


def reference() -> str:
    """Return the reference of all keys, as Markdown."""
    parts = [_INTRODUCTION, *_table("Keys", Config, ""), *_table("Section `umap`", UmapSettings, "umap.")]
    parts += _table("Section `page`", PageSettings, "page.")
    parts += _table("Section `encoders`", EncoderSettings, "encoders.NAME.")
    parts.append(_CLOSING)
    return "\n".join(parts)


def database() -> str:
    """Return the page about the database, with the columns that the tables have in the code."""
    text = (PROJECT / "docs" / "database.md").read_text("utf-8")
    for table in Tables("<TYPE>").metadata.tables.values():
        columns = ", ".join(f"`{column.name}`" for column in table.c)
        text, n_rows = re.subn(rf"^(\| `{table.name}` \|) [^|]* \|", rf"\1 {columns} |", text, flags=re.MULTILINE)
        if n_rows != 1:
            sys.exit(
                f"docs/database.md: {n_rows} rows of the table {table.name}; it needs one: | `{table.name}` | | ... |"
            )
    return text


def _table(title: str, section: type[Section], prefix: str) -> Iterator[str]:
    properties = section.model_json_schema()["properties"]
    yield f"## {title}\n"
    yield "| key | default | allowed | meaning |\n|---|---|---|---|"
    for name, field in section.model_fields.items():
        value = field.default
        default = "required" if field.is_required() else "" if name in ("encoders", "umap", "page") else _value(value)
        yield f"| `{prefix}{name}` | {default} | {_allowed(properties[name])} | {field.description} |"
    yield ""


def _value(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return f"`{text}`" if text else "empty"


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return ", or ".join(map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema.get("type"):
        case "integer" | "number" as kind:
            return f"{'whole ' if kind == 'integer' else ''}number, {schema['minimum']:,} to {schema['maximum']:,}"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return "list of strings"
        case "string":
            return "string"
        case _:
            return "section"


def _without_titles(schema: Any) -> Any:
    """Leave out the titles, which repeat the keys."""
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [*map(_without_titles, schema)] if isinstance(schema, list) else schema


FILES = {
    PROJECT / "workflow" / "schemas" / "config.schema.yaml": schema,
    PROJECT / "docs" / "configuration.md": reference,
    PROJECT / "docs" / "database.md": database,
}

if __name__ == "__main__":
    stale = [path for path, make in FILES.items() if not path.exists() or path.read_text("utf-8") != make()]
    if sys.argv[1:] == ["--check"]:
        names = ", ".join(str(path.relative_to(PROJECT)) for path in stale)
        sys.exit(f"out of date: {names}; renew them with make generated" if stale else 0)
    for path in stale:
        path.write_text(FILES[path](), "utf-8")
