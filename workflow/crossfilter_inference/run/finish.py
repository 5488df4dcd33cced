"""What a run says when it has ended."""

from pathlib import Path

import sqlalchemy as sa

from ..db.connect import reading
from ..db.tables import Tables
from ..errors import InputError
from ..shards.plan import Plan, read_plan
from ..shards.shard import read_shard_provenance
from ..util.files import read_json
from ..util.text import counted

_FEWEST_TO_JUDGE = 20  # photos


def closing_lines(database: str, folder: str, since: float) -> list[str]:
    """Say at the end of a run what it did, what there is, and where to look.

    Parameters
    ----------
    database : str
    folder : str
        State folder of the embedding type.
    since : float
        When the run began, in seconds since the epoch.
    """
    if not Path(folder, "embeddings.json").exists():  # only some of the rules were asked for
        return []
    receipt = read_json(f"{folder}/embeddings.json")
    name = Path(folder).name
    computed, copied = _n_embedded(folder, since)
    _, rejected = read_plan(f"{folder}/plan.tsv")
    copies = f" and {copied:,} copied" if copied else ""
    why_failed = f" ({_reasons(database, name)}), see the table {name}_FAILURES" if receipt["n_failures"] else ""
    why_skipped = f", see {folder}/rejected.tsv" if rejected else ""
    lines = [
        f"embedded: {counted(computed, 'photos')} in this run{copies}, {receipt['n_embeddings']:,} in all, "
        f"in {database}",
        f"failed:   {counted(receipt['n_failures'], 'photos')}{why_failed}",
        f"skipped:  {counted(len(rejected), 'files')}{why_skipped}",
    ]
    quality, look_at = Path(folder, "map_quality.json"), page_line(folder)
    if quality.exists() and look_at:
        lines += [f"map:      {_map_line(quality, since)}", look_at]
    return lines


def page_line(folder: str) -> str:
    """Say where the globe is; empty, if there is none."""
    page = Path(folder, "map.html")
    return f"look at:  {page.absolute().as_uri()}" if page.exists() else ""


def _reasons(database: str, embedding_type: str) -> str:
    """Count failed photos by reason, the most frequent first."""
    reason, n = Tables(embedding_type).failures.c.REASON, sa.func.count()
    with reading(database) as connection:
        counts = connection.execute(sa.select(reason, n).group_by(reason).order_by(n.desc(), reason)).all()
    return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def _is_new(path: Path, since: float) -> bool:
    return path.stat().st_mtime >= since


def _n_embedded(folder: str, since: float) -> tuple[int, int]:
    """Count the photos that jobs embedded, and those that they copied from other rows."""
    # The time stamp of a shard that was kept is new too: Snakemake touches it.
    shards = [path for path in Path(folder, "embeddings").glob("*.sqlite") if _is_new(path, since)]
    timings = [read_shard_provenance(path, Path(folder).name) for path in shards]
    made = [timing for timing in timings if float(timing.get("timing_finished", 0)) >= since]
    return tuple(sum(int(timing[f"timing_n_{fate}"]) for timing in made) for fate in ("computed", "copied"))


def _map_line(path: Path, since: float) -> str:
    record = read_json(path)
    if not _is_new(path, since):
        return f"as it was, of {counted(record['n_images'], 'photos')}"
    drift = record.get("drift_degrees")
    moved = "" if drift is None else f"; the others moved by {drift:.2f} degrees on average"
    if record["action"] == "fit":
        return f"made of {counted(record['n_images'], 'photos')}" + moved.replace("the others", "those of the last one")
    return f"{counted(record['n_new'], 'photos')} joined, {record['n_gone']:,} went{moved}"


def check_failures(folder: str, plan: Plan, max_share: float) -> None:
    """Look, when all is stored, whether so many photos failed that something must be wrong with more than photos.

    Raises
    ------
    InputError
        If more than `max_share` of more than 20 photos failed.
    """
    receipt = Path(folder, "embeddings.json")
    n_failures, n_images = read_json(receipt)["n_failures"] if receipt.exists() else 0, len(plan.images)
    if n_images > _FEWEST_TO_JUDGE and n_failures > max_share * n_images:
        name = Path(folder).name
        raise InputError(
            f"{n_failures} of {n_images} photos failed, and max_failed_share is {max_share:g}; all others are stored. "
            f"The table {name}_FAILURES says why; when that is mended, run once with --config retry_failures=true, or, "
            "if these photos are what they are, set max_failed_share higher"
        )


def last_errors(folder: str, since: float) -> list[str]:
    """Collect the lines with which jobs ended that a mistake of the user's stopped.

    Parameters
    ----------
    folder : str
        State folder of the embedding type.
    since : float
        Only of logs written after this time, in seconds since the epoch.
    """
    logs = [path for path in Path(folder, "logs").rglob("*.log") if path.stat().st_mtime >= since]
    lines = [line for path in sorted(logs) for line in path.read_text(errors="replace").splitlines()[-1:]]
    return sorted({line for line in lines if line.startswith("error: ")})
