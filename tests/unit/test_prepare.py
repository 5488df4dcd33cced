"""A run is planned by one function, without Snakemake."""

import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import asdict

import pytest
from conftest import COLOUR_ENCODER, DEMO_PHOTOS, PROJECT

from crossfilter_inference.encoders.identity import EMBED_VERSION
from crossfilter_inference.errors import InputError
from crossfilter_inference.run.prepare import Resources, prepare_run
from crossfilter_inference.shards.plan import write_manifest, write_plan
from crossfilter_inference.util.files import write_stamp


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with three photos, a text file, and a folder in which nothing can be written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in DEMO_PHOTOS[:3]:
        shutil.copy2(path, tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    (tmp_path / "a-file").write_text("not a database")
    return tmp_path


def prepare(resources=None, **changes):
    config = {
        "input_dir": "photos",
        "output_embeddings_db": "results/photos.sqlite",
        "embedding_type": "COLOUR",
        "encoders": {"COLOUR": {"backend": str(COLOUR_ENCODER), "model": "a"}},
    }
    return prepare_run({**config, **changes}, resources or Resources(cores=2))


def test_a_new_collection_is_planned_and_nothing_is_written(folder):
    before = sorted(folder.rglob("*"))
    run = prepare(shard_size=2)
    assert sorted(folder.rglob("*")) == before
    assert (run.type, run.database, run.state) == ("COLOUR", "results/photos.sqlite", "results/photos/COLOUR")
    assert run.shards == run.plan.new_shards == ["000001", "000002"]
    assert run.shard_sizes == {"000001": 2, "000002": 1}
    assert (run.store_generation, run.map_generation) == (1, 1)
    assert (run.shares.cores, run.shares.n_jobs) == (2, 1)
    assert run.warnings == ()
    assert [note.split(":")[0] for note in run.notes] == ["photos", "forecast"]


def test_the_plan_counts_embeddings_of_the_application(folder):
    (folder / "results").mkdir()
    connection = sqlite3.connect(folder / "results" / "photos.sqlite")
    connection.execute("CREATE TABLE IMAGE_EMBEDDINGS (UUID_STRING STRING, SEMANTIC_EMBEDDING TEXT)")
    rows = [(path.stem, b"x") for path in DEMO_PHOTOS[1:8]]
    connection.executemany("INSERT INTO IMAGE_EMBEDDINGS VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    [line] = [note for note in prepare().notes if "adopt" in note]
    assert line.endswith("2 embeddings of Crossfilter's application (IMAGE_EMBEDDINGS); photos not found: 5")
    assert not any("adopt" in note for note in prepare(recompute_existing_embeddings=True).notes)


@pytest.mark.parametrize(("version", "n_warnings"), [(EMBED_VERSION, 0), (EMBED_VERSION - 1, 1)])
def test_the_plan_says_beforehand_that_an_upgrade_embeds_every_photo_again(folder, version, n_warnings):
    (folder / "results" / "photos" / "COLOUR" / "shards").mkdir(parents=True)
    (folder / "results" / "photos" / "COLOUR" / "encoder.json").write_text(f'{{"embed_version": {version}}}')
    warnings = prepare().warnings
    assert len(warnings) == n_warnings
    assert all("all 3 photos will be embedded again, because colours" in warning for warning in warnings)


def test_an_upgrade_that_was_killed_is_announced_again(folder):
    state = folder / "results" / "photos" / "COLOUR"
    (state / "shards").mkdir(parents=True)
    (state / "encoder.json").write_text(f'{{"embed_version": {EMBED_VERSION}}}')
    connection = sqlite3.connect(folder / "results" / "photos.sqlite")
    connection.execute("CREATE TABLE COLOUR_PROVENANCE (KEY TEXT PRIMARY KEY, VALUE TEXT)")
    connection.execute("INSERT INTO COLOUR_PROVENANCE VALUES ('encoder_embed_version', '1')")
    connection.commit()
    assert ["all 3 photos will be embedded again" in warning for warning in prepare().warnings] == [True]
    connection.execute("UPDATE COLOUR_PROVENANCE SET VALUE = ?", (str(EMBED_VERSION),))
    connection.commit()
    assert prepare().warnings == ()
    connection.close()


def test_the_final_output_lists_every_file_once_and_the_map_only_on_request(folder):
    run = prepare()
    files = run.final_output()
    assert files[0] == "results/photos.sqlite"
    assert len({*files}) == len(files)
    assert {"<results>/map.html", "<results>/embeddings/000001.sqlite", run.stamps.umap} <= {*files}
    without_map = prepare(reproject_umap_embeddings=False).final_output()
    assert {*files} - {*without_map} == {file for file in files if "map" in file.rsplit("/", 1)[-1]} | {
        "<results>/neighbours.npz",
        run.stamps.page,
    }


@pytest.mark.parametrize(
    ("changes", "stamp"),
    [
        ({"encoders": {"COLOUR": {"backend": str(COLOUR_ENCODER), "model": "b"}}}, "encoder"),
        ({"missing_images": "delete"}, "store"),
        ({"umap": {"min_dist": 0.5}}, "umap"),
        ({"shard_size": 1}, "manifest"),
        ({"batch_size": 3, "device": "cpu", "max_megapixels": 5}, None),
    ],
)
def test_a_setting_changes_only_the_stamps_that_it_concerns(folder, changes, stamp):
    before, after = asdict(prepare().stamps), asdict(prepare(**changes).stamps)
    assert [name for name in before if before[name] != after[name]] == [stamp] * (stamp is not None)


def test_a_job_on_a_cluster_neither_scans_nor_plans(folder):
    run = prepare(Resources(cores=8, nodes=4, is_main_process=False), input_dir="no/such/folder")
    assert run.resources.on_cluster
    assert (run.plan.images, run.shards, run.notes) == ([], [], ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_dir": "no/such/folder"}, "/no/such/folder' (No such file or directory)"),
        ({"input_dir": "empty"}, "/empty' (rejected files: 0; other files, ignored: 1 (1 .txt)); set it to a folder"),
        ({"encoders": {"COLOUR": {"backend": "no.py"}}}, "encoders.COLOUR.backend: 'no.py' does not exist"),
        ({"shard_sise": 5}, "shard_sise: unknown key (value 5); did you mean shard_size?"),
        ({"embedding_type": "CLOUR"}, "embedding_type: 'CLOUR' is not configured; did you mean COLOUR?; choose one of"),
        ({"output_embeddings_db": "photos"}, "output_embeddings_db: cannot write to 'photos' (it is a folder)"),
        ({"output_embeddings_db": "a-file/x.sqlite"}, "cannot write to 'a-file/x.sqlite' ('a-file' is "),
        ({"output_embeddings_db": "a-file"}, "a-file"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(folder, changes, message):
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as raised:
        prepare(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(folder.rglob("*")) == before


def test_planning_needs_no_package_that_snakemake_does_not_bring(folder):
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(PROJECT / 'workflow')!r})\n"
        "from crossfilter_inference.run import finish, forecast, prepare, progress, start\n"
        "settings = {'input_dir': 'photos', 'output_embeddings_db': 'x.sqlite'}\n"
        "start.start_run(prepare.prepare_run(settings, prepare.Resources()))\n"
        "heavy = {'numpy', 'PIL', 'msgpack', 'torch', 'pandas', 'scipy', 'umap', 'typer', 'tqdm', 'transformers'}\n"
        "sys.exit(', '.join(sorted(heavy & {*sys.modules})) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.exists("x/SIGLIP2/plan.tsv")


def test_a_plan_counts_deletions_and_photos_to_be_read_again(folder):
    run = prepare(missing_images="delete")
    assert run.deletions.line("to delete:") == "to delete: 0 embeddings of missing photos"
    assert "to delete: 0 embeddings of missing photos" in run.notes
    write_plan(f"{run.state}/plan.tsv", run.plan)
    write_manifest(f"{run.state}/plan.tsv", *(f"{run.state}/{name}" for name in ("m.tsv", "r.tsv", "shards")))
    one, other, third = sorted((folder / "photos").glob("*.jpg"))
    one.unlink()
    other.write_bytes(b"")
    third.chmod(0o600)
    again = prepare(missing_images="delete")
    assert "to delete: 1 embedding of missing photos; held back: 1 embedding (1: the file is there, but empty)" in (
        again.notes
    )
    assert again.notes[0].startswith("photos: 1, new: 0 (shards: 1); to be read again: 1 (")
    assert again.notes[-1].startswith("forecast: 0 photos to embed, 1 to read again (shards: 1), about")
    assert again.stamps.store != run.stamps.store, "another row is held back"
    assert prepare().deletions is None


def test_photos_in_folders_that_are_excluded_now_are_held_back(folder):
    (folder / "photos").rename(folder / "#recycle")
    (folder / "photos").mkdir()
    (folder / "#recycle").rename(folder / "photos" / "#recycle")
    shutil.copy2(DEMO_PHOTOS[5], folder / "photos")
    run = prepare(exclude=[])
    assert len(run.plan.images) == 4
    write_plan(f"{run.state}/plan.tsv", run.plan)
    write_manifest(f"{run.state}/plan.tsv", *(f"{run.state}/{name}" for name in ("m.tsv", "r.tsv", "shards")))
    again = prepare(missing_images="delete")
    assert "excluded files: 3 (3 #recycle)" in again.notes[0]
    assert (again.deletions.n_deleted, again.deletions.held_back.total()) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_dir": ["photos"]}, "outside input_dir"),
        ({"image_extensions": [".jpg"]}, "image_extensions"),
        ({"exclude": ["second"]}, "exclude"),
        ({"input_dir": ["photos"], "exclude": ["second"], "image_extensions": [".jpg"]}, "outside input_dir"),
    ],
)
def test_a_narrower_configuration_deletes_no_row(folder, changes, reason):
    for path in DEMO_PHOTOS[10:12]:
        (folder / "second" / "second").mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / "second" / "second" / f"{path.stem}.jpeg")
    run = prepare(input_dir=["photos", "second"])
    assert len(run.plan.images) == 5
    write_plan(f"{run.state}/plan.tsv", run.plan)
    write_manifest(f"{run.state}/plan.tsv", *(f"{run.state}/{name}" for name in ("m.tsv", "r.tsv", "shards")))
    found = prepare(**{"input_dir": ["photos", "second"], "missing_images": "delete", **changes}).deletions
    assert (found.n_deleted, found.held_back.total()) == (0, 2)
    assert reason in found.line("to delete:")


def _finish(run):
    """Leave the files of a run's plan, as its jobs do."""
    write_plan(f"{run.state}/plan.tsv", run.plan)
    files = (f"{run.state}/{name}" for name in ("plan.tsv", "manifest.tsv", "rejected.tsv", "shards"))
    write_manifest(*files)
    write_stamp(prepare().stamps.manifest.replace("<results>", run.state))


def test_the_last_plan_is_read_only_if_it_may_matter(folder):
    run = prepare()
    _finish(run)
    plan = folder / run.state / "plan.tsv"
    rows = plan.read_text()
    plan.write_text("damaged")
    assert prepare().plan.missing == []
    photos = sorted((folder / "photos").iterdir())
    photos[0].rename(folder / "aside.jpg")
    with pytest.raises(InputError, match=r"plan\.tsv"):
        prepare()
    plan.write_text(rows)
    assert [image.path for image in prepare().plan.missing] == [str(photos[0])]
    _finish(prepare())
    assert [image.path for image in prepare().plan.missing] == [str(photos[0])]  # also in the run after next
    (folder / "aside.jpg").rename(photos[0])  # a rename changes the status
    assert prepare().plan.n_reread == 1


def test_the_plan_counts_new_changed_and_missing_photos(folder):
    _finish(prepare())
    one, other, _ = sorted((folder / "photos").iterdir())
    one.unlink()
    other.write_bytes(other.read_bytes() + b"x")
    shutil.copy2(DEMO_PHOTOS[5], folder / "photos")
    assert prepare().notes[0].startswith("photos: 3, new: 1, changed: 1 (shards: 1); missing: 1; rejected")
    assert prepare(recompute_existing_embeddings=True).plan.n_changed == 2


def test_the_plan_counts_moved_photos_but_not_another_spelling_of_the_folder(folder):
    _finish(prepare())
    (folder / "photos" / "trip").mkdir()
    one = min((folder / "photos").glob("*.jpg"))
    one.rename(folder / "photos" / "trip" / one.name)
    for input_dir in ("photos", "./photos", str(folder / "photos")):
        assert (
            "(new or unknown status; embedded only if the content differs); moved or renamed: 1; rejected"
            in (prepare(input_dir=input_dir).notes[0])
        )
    (folder / "photos" / "trip" / one.name).rename(one)
    assert "moved" not in prepare(input_dir="./photos").notes[0]


def test_every_photo_is_read_again_on_request(folder):
    _finish(prepare())
    again = prepare(reread_photos=True)
    assert (again.plan.n_reread, again.plan.new_shards) == (3, ["000002"])
    _finish(again)
    assert prepare().plan.new_shards == []


@pytest.mark.parametrize("options", [{}, {"retry_failures": True}])
def test_among_new_photos_the_last_plan_is_read_if_an_old_one_has_changed(folder, options):
    _finish(prepare())
    plan = folder / "results" / "photos" / "COLOUR" / "plan.tsv"
    rows = plan.read_text()
    shutil.copy2(DEMO_PHOTOS[3], folder / "photos")
    plan.write_text("damaged")
    assert prepare(**options).shard_sizes == {"000001": 3, "000002": 1}, "new photos alone need no last plan"
    plan.write_text(rows)
    gone, touched, _ = sorted(path for path in (folder / "photos").iterdir() if path.name != DEMO_PHOTOS[3].name)
    gone.rename(folder / "aside.jpg")
    assert [image.path for image in prepare(**options).plan.missing] == [str(gone)]
    (folder / "aside.jpg").rename(gone)
    assert prepare(**options).plan.n_reread == 1
    touched.chmod(0o600)
    assert prepare(**options).plan.n_reread == 2
    assert prepare(**options).shard_sizes == {"000001": 1, "000002": 3}


def test_after_a_lost_list_the_last_plan_is_read(folder):
    _finish(run := prepare(shard_size=2))
    (folder / run.state / "shards" / "000002.tsv").unlink()
    (folder / run.state / "embeddings").mkdir(exist_ok=True)
    (folder / run.state / "embeddings" / "000002.sqlite").touch()
    assert prepare(shard_size=2).plan.new_shards == ["000002"]
    [last] = (image.path for image in run.plan.images if image.shard == "000002")
    os.chmod(last, 0o600)
    assert prepare(shard_size=2).plan.new_shards == ["000003"], "the database of 000002 may be of its old contents"
