"""On a cluster, on a laptop and after a crash: a bit-identical database, safe writes, no repeated work.

Runs that lose their jobs on purpose run in the background, next to the undisturbed ones.
"""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PROJECT
from rows import tables

N_PHOTOS, BATCH_SIZE, N_DONE = 12, 2, 2  # finished batches at the time of the fault


class Broken:
    """A run of one shard, whose job waits in the encoder after some batches."""

    def __init__(self, collection, *options):
        self.collection, self.pauses = collection, collection.folder / "pauses"
        self.pauses.mkdir()
        (self.pauses / "let-through").write_text(str(N_DONE))
        (self.pauses / "encode").touch()
        self.run = collection.start(*options, **{**os.environ, "COLOUR_ENCODER_PAUSE": str(self.pauses)})

    def wait_until_at_work(self):
        self.collection.wait_for((self.pauses / "encode-reached").exists)

    @property
    def job(self):
        return re.search(r"submitted with SLURM jobid (\d+)", self.collection.output)[1]

    def wait_for_second_job(self, seconds=400):
        """Let the encoder continue when the first job is lost; the second job must finish."""
        self.collection.wait_for(lambda: "Trying to restart job" in self.collection.output, seconds)
        (self.pauses / "encode").unlink()

    def end(self):
        code = self.run.wait(timeout=600)
        assert code == 0, self.collection.output[-6000:]


@pytest.fixture(scope="module")
def start_run(make_cluster_collection):
    """Start a run of one shard; kill leftover runs at the end."""
    runs = []

    def start(name):
        collection = make_cluster_collection(N_PHOTOS, name, batch_size=BATCH_SIZE, shard_size=N_PHOTOS, device="cpu")
        runs.append(Broken(collection))
        return runs[-1]

    yield start
    for broken in runs:
        if broken.run.poll() is None:
            os.killpg(broken.run.pid, signal.SIGKILL)
            broken.run.wait()


def cancel(slurm, broken):
    slurm.ask("scancel", broken.job)


def take_memory(slurm, broken):
    (broken.pauses / "memory").write_text("3000")  # on a CPU, a job has 2,250 MB, and twice that when it is retried


def take_time(slurm, broken):
    slurm.ask("scontrol", "update", f"JobId={broken.job}", "TimeLimit=0:01")


def take_node_down(slurm, broken):
    slurm.ask("scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=test")


WAYS = {"CANCELLED": cancel, "OUT_OF_MEMORY|FAILED": take_memory, "TIMEOUT": take_time}


def lose(slurm, broken, way):
    """Lose the job of a run, and let the next job finish."""
    broken.wait_until_at_work()
    way(slurm, broken)
    broken.wait_for_second_job()
    broken.end()
    return broken


@pytest.fixture(scope="module")
def lost(slurm, start_run):
    """Runs that lose a job, in the background."""
    with ThreadPoolExecutor(len(WAYS)) as pool:
        yield {status: pool.submit(lose, slurm, start_run(way.__name__), way) for status, way in WAYS.items()}


@pytest.fixture(scope="module")
def runs(make_cluster_collection, lost):
    """Three collections of the same steps: 59 photos, then 3 more."""
    settings = {"embedding_type": "EFFICIENTNET_LITE0", "reproject_umap_embeddings": True, "shard_size": 30}
    local, cluster, killed = (make_cluster_collection(59, name, **settings) for name in ("local", "cluster", "killed"))
    cluster.is_traced = True
    # Paths as in the trace, and the node's own disk.
    cluster.configure(output_embeddings_db=str(cluster.database))
    scratch = cluster.folder / "scratch"
    scratch.mkdir()
    node = {"env": {**os.environ, "TMPDIR": str(scratch)}}

    def go_on(collection, **options):
        collection.first = tables(collection)
        collection.add_photos(3)
        collection.run(**options)

    def on_the_cluster():
        cluster.run(cores=None, **node)
        go_on(cluster, cores=None, **node)

    with ThreadPoolExecutor(1) as pool:  # next to the two others: it mostly waits for Slurm
        done = pool.submit(on_the_cluster)
        local.run(cores=2)
        go_on(local, cores=2)
        # The run is killed while its jobs are queued or running; they continue next to their successors.
        run = killed.start()
        killed.wait_for(lambda: "has been submitted with SLURM jobid" in killed.output)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        killed.run(cores=None)
        go_on(killed, cores=2)  # a run started on a cluster is continued on one machine
        done.result()
    return {"local": local, "cluster": cluster, "killed": killed}


@pytest.mark.timeout(1800)
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


def test_on_this_node_only_the_two_that_store_open_the_database_for_writing(runs):
    database, writers = re.escape(str(runs["cluster"].database)), set()
    for path in runs["cluster"].traces:  # one of each process and thread
        script = None
        for line in path.read_text().splitlines():
            if line.startswith("execve("):
                script = re.search(r"scripts/(\w+\.py)|$", line)[1]
            elif any("O_RDONLY" not in flags for flags in opens(line, f"{database}(?:-journal)?")):
                writers.add(script)
    assert writers == {"store_embeddings.py", "store_map.py"}


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


def check_that_nothing_was_done_twice(broken, status):
    collection, n_done = broken.collection, N_DONE * BATCH_SIZE
    log = (collection.state / "logs" / "embed_shard" / "000001.log").read_text()
    assert f"embedded {N_PHOTOS - n_done} photos, copied 0, resumed {n_done} of an interrupted job" in log
    assert len(collection.embeddings()) == N_PHOTOS
    assert collection.dry_run(cores=2) == {}
    assert re.search(rf"SLURM status is: '({status})'", collection.output), "the run reports the status of the job"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("status", WAYS)
def test_a_run_resumes_after_its_job_was_lost(lost, status):
    check_that_nothing_was_done_twice(lost[status].result(), status)


@pytest.mark.timeout(1800)
def test_a_run_resumes_after_its_node_was_lost(lost, runs, start_run, slurm):
    for future in lost.values():
        future.result()  # all jobs of this node end with it
    broken = start_run("node")
    broken.wait_until_at_work()
    take_node_down(slurm, broken)
    slurm.ask("scontrol", "update", "NodeName=localhost", "State=RESUME")
    broken.wait_for_second_job()
    broken.end()
    check_that_nothing_was_done_twice(broken, "NODE_FAIL")


@pytest.mark.timeout(1800)
def test_ctrl_c_ends_the_jobs_too(start_run, slurm):
    broken = start_run("interrupted")
    broken.wait_until_at_work()
    assert broken.job in slurm.ask("squeue", "--noheader", "--format=%i").split()
    os.killpg(broken.run.pid, signal.SIGINT)
    assert broken.run.wait(timeout=60) != 0
    slurm.wait_until(lambda: broken.job not in slurm.ask("squeue", "--noheader", "--format=%i").split())
    assert "Traceback" not in broken.collection.output


def test_the_command_of_the_documentation_plans_a_run(slurm):
    text = (PROJECT / "docs" / "cluster.md").read_text()
    dry_run, run, _ = re.findall(r"^snakemake --profile .*$", text, re.MULTILINE)
    assert dry_run == f"{run} --dry-run"
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        dry_run, shell=True, cwd=PROJECT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "photos: 62" in done.stdout
