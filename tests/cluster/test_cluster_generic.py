"""A scheduler without a plugin of its own: the rows are those of one machine."""

import os

import pytest
from conftest import needs
from rows import tables

pytestmark = needs("snakemake_executor_plugin_cluster_generic")
SCHEDULER = """#!/bin/sh
# Take cores, MB and the script of a job; run it, and print its number.
echo "$1" "$2" >> {folder}/submitted.txt
setsid sh "$3" > "$3.out" 2>&1 < /dev/null &
echo $!
"""


@pytest.mark.timeout(600)
def test_the_database_is_that_of_one_machine(make_collection, tmp_path):
    settings = {"embedding_type": "EFFICIENTNET_LITE0", "reproject_umap_embeddings": True, "shard_size": 10}
    home, cluster = (make_collection(20, name, **settings) for name in ("home", "cluster"))
    submit = tmp_path / "submit.sh"
    submit.write_text(SCHEDULER.format(folder=tmp_path))
    submit.chmod(0o700)
    command = f"{submit} {{threads}} {{resources.mem_mb}}"
    options = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", command, "--jobs", "2")
    for n_photos in (20, 23):
        home.run()
        cluster.run(*options, cores=None)
        rows = tables(home)
        assert len(rows["EMBEDDINGS"]) == len(rows["UMAP_HAVERSINE"]) == n_photos
        assert tables(cluster) == rows
        for collection in (home, cluster):
            collection.add_photos(3)
    # Twice: the embedding of new shards, the map and its drawing; once: the words.
    requests = [line.split() for line in (tmp_path / "submitted.txt").read_text().splitlines()]
    assert len(requests) == (2 + 1) + 2 * 2 + 1
    assert all(int(cores) >= 1 and int(memory_mb) >= 100 for cores, memory_mb in requests)
    assert os.listdir(cluster.state / "shards") == os.listdir(home.state / "shards")
