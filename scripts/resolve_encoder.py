"""The job of rule resolve_encoder."""

import logging
from pathlib import Path
from typing import Any

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.encoders import registry
from crossfilter_inference.shards.guard import refuse_mixture, unused_rows
from crossfilter_inference.shards.plan import read_removed
from crossfilter_inference.util.files import read_json, write_json


def main(
    *,
    name: str,
    settings: dict[str, Any],
    output: Path,
    database: str | None = None,
    plan: str | None = None,
    missing_images: str = "keep",
    recompute: bool = False,
    device: str = "auto",
) -> str:
    r"""Resolve an encoder to a model, commit, digests, preprocessing and versions.

    Only this job may use the network: it downloads a missing checkpoint into the cache.

    Parameters
    ----------
    name : str
        Embedding type.
    settings : dict
        Its entry under encoders: in the configuration, as JSON.
    output : Path
        encoder.json to write.
    database : str, optional
        Database to check: its rows of missing photos must not be mixed with new ones.
    plan : str, optional
        plan.tsv, the list of photos.
    missing_images : str
        keep or delete.
    recompute : bool
        Whether this run embeds every photo again.
    device : str
        auto, cpu, cuda or mps.

    Examples
    --------
        python scripts/resolve_encoder.py --name EFFICIENTNET_LITE0 --settings '{"backend": "efficientnet_lite0"}' \
            --output encoder.json
    """
    before = read_json(output) if output.exists() else None
    encoder = registry.resolve_encoder(name, settings, device, before)
    if database and plan:
        deleted = read_removed(plan) if missing_images == "delete" else frozenset()
        refuse_mixture(database, plan, encoder, recompute=recompute, deleted=deleted)
        if line := unused_rows(database, plan, encoder):
            logging.getLogger(__name__).warning(line)
    write_json(output, encoder)
    return (
        f"{encoder['name']}: {encoder['model']}, {encoder['dimension']} dimensions, {encoder['dtype']} by "
        f"{encoder['runtime']}"
    )


if __name__ == "__main__":
    run_job(main)
