"""The job of rule write_manifest."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.shards.plan import write_manifest


def main(*, plan: str, manifest: str, rejected: str, shards: str) -> str:
    r"""Write the manifest, the rejected files and the lists of new shards from the plan of this run.

    Parameters
    ----------
    plan : str
        plan.tsv of this run.
    manifest : str
        manifest.tsv to write.
    rejected : str
        rejected.tsv to write.
    shards : str
        Folder of the shard lists; new ones are written.

    Examples
    --------
        python scripts/write_manifest.py --plan plan.tsv --manifest manifest.tsv --rejected rejected.tsv \
            --shards shards
    """
    written = write_manifest(plan, manifest, rejected, shards)
    return f"{written.summary()}; rejected files: {len(written.rejected)}"


if __name__ == "__main__":
    run_job(main)
