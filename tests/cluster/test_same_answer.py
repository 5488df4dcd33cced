"""On a cluster, on a laptop and after a crash: the same database to the last bit, and only safe writes."""

import os
import re
import signal

import pytest

TABLES = {
    "EMBEDDINGS": "*",
    "UMAP_HAVERSINE": "*",
    "UMAP_MODEL": "*",
    "FAILURES": "*",
    "IMAGES": "UUID, SIZE, MTIME_NS, DIGEST, WIDTH, HEIGHT, TAKEN, SHARD",
}


def tables(collection):
    return {
        table: collection.sql(f"SELECT {columns} FROM {{T}}_{table} ORDER BY 1") for table, columns in TABLES.items()
    }


@pytest.fixture(scope="module")
def runs(make_cluster_collection, slurm):
    """Three collections of the same steps: 59 photos, then 3 more."""
    settings = {"embedding_type": "EFFICIENTNET_LITE0", "reproject_umap_embeddings": True, "shard_size": 30}
    local, cluster, killed = (make_cluster_collection(59, name, **settings) for name in ("local", "cluster", "killed"))
    # Paths as the trace has them, and a disk of the node's own.
    cluster.configure(output_embeddings_db=str(cluster.database))
    scratch = cluster.folder / "scratch"
    scratch.mkdir()
    node = {"env": {**os.environ, "TMPDIR": str(scratch)}}
    local.run(cores=2)
    cluster.run(cores=None, **node)
    # The run is killed while its jobs are in the queue or at work; they live on beside their successors.
    run = killed.start()
    killed.wait_for(lambda: "has been submitted with SLURM jobid" in killed.output)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    killed.run(cores=None)
    for collection in (local, cluster, killed):
        collection.first = tables(collection)
        collection.add_photos(3)
    local.run(cores=2)
    cluster.run(cores=None, **node)
    killed.run(cores=2)  # what a cluster began goes on at home
    return {"local": local, "cluster": cluster, "killed": killed}


@pytest.mark.timeout(420)
@pytest.mark.parametrize("name", ["cluster", "killed"])
def test_the_database_is_that_of_one_machine(runs, name):
    assert len(runs["local"].first["UMAP_HAVERSINE"]) == 59
    assert runs[name].first == runs["local"].first
    after = tables(runs["local"])
    assert len(after["EMBEDDINGS"]) == len(after["UMAP_HAVERSINE"]) == 62
    assert tables(runs[name]) == after


def opens(trace, path):
    """Flags of every opening of a path."""
    return re.findall(rf'open(?:at)?\((?:AT_FDCWD, )?"{path}", ([A-Z_|]+)', trace)


def test_jobs_on_nodes_open_the_database_for_reading_only(runs, slurm):
    trace, database = slurm.trace.read_text(), re.escape(str(runs["cluster"].database))
    assert len(opens(trace, database)) >= 2, "the jobs that make the map read it"
    flags = {flag for found in opens(trace, f"{database}(?:-journal)?") for flag in found.split("|")}
    assert flags & {"O_RDWR", "O_WRONLY", "O_CREAT", "O_TRUNC"} == set()


def test_a_shard_is_built_on_a_disk_of_the_node_and_appears_by_one_rename(runs, slurm):
    cluster, trace = runs["cluster"], slurm.trace.read_text()
    shards = sorted((cluster.state / "embeddings").glob("*.sqlite"))
    assert [path.name for path in shards] == ["000001.sqlite", "000002.sqlite", "000003.sqlite"]
    for path in shards:
        assert len(re.findall(rf'rename\("[^"]*", "{re.escape(str(path))}"', trace)) == 1
        assert not any("O_RDONLY" not in flags for flags in opens(trace, re.escape(str(path))))
        part = rf"\.{path.name}\.\w+\.part[^\"/]*"
        built = opens(trace, rf"{cluster.folder}/scratch/[^\"/]*{path.name}[^\"]*-journal")
        assert built, "SQLite works on the node's disk"
        assert opens(trace, rf"{path.parent}/{part}-journal") == [], "and not on the shared one"
    assert list((cluster.folder / "scratch").iterdir()) == []
