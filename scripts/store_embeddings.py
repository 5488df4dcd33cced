"""The job of rule store_embeddings."""

import _library  # noqa: F401
from crossfilter_inference.cli.command import run_job
from crossfilter_inference.shards.merge import store_embeddings
from crossfilter_inference.shards.plan import read_removed


def main(
    *,
    encoder: str,
    manifest: str,
    plan: str,
    database: str,
    shards: str,
    embeddings: str,
    receipt: str,
    missing_images: str = "keep",
    generation: int = 1,
) -> str:
    r"""Merge the shard databases into the database, in one transaction.

    Parameters
    ----------
    encoder : str
        encoder.json.
    manifest : str
        manifest.tsv.
    plan : str
        plan.tsv, which tells which missing photos are known to be removed.
    database : str
        Database to update.
    shards : str
        Folder of the shard lists.
    embeddings : str
        Folder of the shard databases.
    receipt : str
        embeddings.json to write.
    missing_images : str
        keep or delete: what to do with rows of missing photos that are known to be removed.
    generation : int
        Generation to record in the receipt.

    Examples
    --------
        python scripts/store_embeddings.py --encoder encoder.json --manifest manifest.tsv --plan plan.tsv \
            --database photos.sqlite --shards shards --embeddings embeddings --receipt embeddings.json
    """
    stored = store_embeddings(
        *(encoder, manifest, database, shards, embeddings, receipt),
        generation=generation,
        deleted=read_removed(plan) if missing_images == "delete" else frozenset(),
    )
    return (
        f"{database}: rows merged: {stored.n_merged}, deleted: {stored.n_deleted}; it holds "
        f"{stored.n_embeddings} embeddings; failures: {stored.n_failures}"
        + (f"; shards retired: {stored.n_retired}" if stored.n_retired else "")
    )


if __name__ == "__main__":
    run_job(main)
