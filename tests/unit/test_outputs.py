"""Outputs destroy nothing: neither database, state, photos nor files of another kind."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import DEMO_PHOTOS

from crossfilter_inference.cli import commands, outputs
from crossfilter_inference.cli.outputs import HTML, NPY, PARQUET, UUIDS, Protected, check_output
from crossfilter_inference.cli.workflow import snakemake_command
from crossfilter_inference.errors import InputError
from crossfilter_inference.run.database import check_database_path
from crossfilter_inference.util.paths import is_within

pytest_plugins = "verified"


@pytest.fixture
def place(tmp_path):
    """A collection: a database, its state and its photos; and a folder for outputs."""
    for folder in ("photos/sub", "x/T/shards", "other/T/shards", "out"):
        (tmp_path / folder).mkdir(parents=True)
    sqlite3.connect(tmp_path / "x.sqlite").execute("CREATE TABLE T_EMBEDDINGS (x)").connection.close()
    for file in ("x/T/encoder.json", "other/T/encoder.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "other/.lock").touch()
    (tmp_path / "x/T/map.html").write_text("<!doctype html>")
    shutil.copy(DEMO_PHOTOS[0], tmp_path / "photos" / "sub")
    return tmp_path


def check(place, path, kind=HTML, *, force=False):
    protected = Protected(str(place / "x.sqlite"), [str(place / "photos")])
    return check_output("--out", place / path, kind, protected, force=force)


def snapshot(folder: Path) -> dict[str, object]:
    return {
        str(path): path.read_bytes() if path.is_file() else os.readlink(path) if path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x.sqlite", "is the database of the collection"),
        ("out/../x.sqlite", "is the database of the collection"),
        ("x.sqlite-journal", "is the database of the collection"),
        ("x.sqlite-wal", "is the database of the collection"),
        ("x/T/map.html", "belongs to the state folder of the collection"),
        ("x/new.html", "belongs to the state folder of the collection"),
        ("photos/new.html", "is in '.*photos', a folder of photos"),
        ("photos/sub/../../photos/sub/new.html", "is in '.*photos', a folder of photos"),
        ("photos/new/new.html", "is in '.*photos', a folder of photos"),
        ("other/T/new.html", "is in the state folder of another collection"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_database_state_and_photos_are_never_written(place, path, message, force):
    before = snapshot(place)
    with pytest.raises(InputError, match=f"^--out: '.*' {message}; name another file. Nothing was written$"):
        check(place, path, force=force)
    assert snapshot(place) == before


@pytest.mark.parametrize("target", ["x.sqlite", "x/T/map.html", "x/T/new.html", "photos/new.html", "photos/sub"])
def test_links_are_followed_before_a_file_is_refused(place, target):
    (place / "out/link.html").symlink_to(place / target)
    with pytest.raises(InputError, match="Nothing was written"):
        check(place, "out/link.html", force=True)
    (place / "out/folder").symlink_to((place / target).parent)
    with pytest.raises(InputError, match="Nothing was written"):
        check(place, f"out/folder/{Path(target).name}", force=True)


@pytest.mark.parametrize("target", ["x.sqlite", "x/T/map.html", "x/T/encoder.json"])
def test_a_hard_link_to_the_collection_is_refused(place, target):
    os.link(place / target, place / "out/link.html")
    with pytest.raises(InputError, match=r"is the database of the collection|belongs to the state folder"):
        check(place, "out/link.html", force=True)


def test_a_folder_is_known_by_another_spelling(place, monkeypatch):
    real = os.path.samefile

    def samefile(path, other):  # as on a disk that ignores case
        return real(str(path).replace("PHOTOS", "photos"), str(other).replace("PHOTOS", "photos"))

    monkeypatch.setattr(os.path, "samefile", samefile)
    with pytest.raises(InputError, match="a folder of photos"):
        check(place, "PHOTOS/sub/new.html")


def test_equal_inode_numbers_everywhere_refuse_nothing(place, monkeypatch):
    monkeypatch.setattr(os.path, "samefile", lambda path, other: True)
    assert not is_within(place / "out", place / "photos")
    assert is_within(place / "photos" / "sub", place / "photos")


CONTENTS = {
    HTML: b"\n<!DOCTYPE HTML>\n<html>",
    PARQUET: b"PAR1 and more",
    NPY: b"\x93NUMPY\x01\0",
    UUIDS: b"5237ab3d-4df8-52aa-ae37-fa74dffefb1a\n",
    "a file of another kind": b"my diary\n",
}


@pytest.mark.parametrize("kind", [HTML, PARQUET, NPY, UUIDS])
@pytest.mark.parametrize("found", CONTENTS)
def test_a_file_is_replaced_by_its_own_kind_only(place, kind, found):
    (place / "out/file").write_bytes(CONTENTS[found])
    if kind == found:
        assert check(place, "out/file", kind) == place / "out/file"
        return
    with pytest.raises(InputError, match=f"exists and is {found}, not {kind}; name another file, or add --force"):
        check(place, "out/file", kind)
    assert check(place, "out/file", kind, force=True) == place / "out/file"
    assert (place / "out/file").read_bytes() == CONTENTS[found], "it is written later"


def test_a_new_or_empty_file_is_free(place):
    (place / "out/empty").touch()
    assert check(place, "out/empty") == place / "out/empty"
    assert check(place, "out/new.html") == place / "out/new.html"
    assert sorted(os.listdir(place / "out")) == ["empty"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        *(b"\xff\xd8\xff\xe0", b"\x89PNG\r\n", b"GIF89a", b"II*\0", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypheic"),
        *(b"\0\0\0\x20ftypisom", b"\xff\x0a", b"SQLite format 3\0"),
    ],
)
def test_images_videos_and_databases_are_never_replaced(place, head, force):
    (place / "out/holiday").write_bytes(head)
    with pytest.raises(InputError, match=r"exists and is an (image or a video|SQLite database), which is never"):
        check(place, "out/holiday", force=force)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("out", "is a folder; name a file"),
        ("out/.", "is a folder; name a file"),
        ("no/such/folder/x.html", "is in '.*no/such/folder', which does not exist; create this folder"),
        ("diary.txt/x.html", "diary.txt"),
        (f"out/{'x' * 300}.html", "File name too long"),
        ("pipe", "is not a regular file"),
        ("loop", "Too many levels of symbolic links|No such file"),
        ("/proc/x.html", "cannot write '/proc/x.html'"),
        ("/dev/null", "is not a regular file"),
    ],
)
def test_what_cannot_be_written_ends_in_one_line(place, path, message):
    (place / "diary.txt").write_text("dear")
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to(place / "loop")
    before = sorted(place.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        check(place, path)
    assert "\n" not in str(caught.value)
    assert sorted(place.rglob("*")) == before


def test_a_folder_is_made_one_deep(place):
    path = check(place, "new/x.html")
    assert not path.parent.exists()


def test_a_full_disk_is_named():
    with (
        pytest.raises(InputError, match=r"^--html: cannot write 'x' \(No space left on device\); fix this, or name"),
        outputs.reporting_errors("--html", Path("x")),
    ):
        raise OSError(28, "No space left on device")


# ---- commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own(collection):
    """A collection that knows its folders of photos from its last run."""
    (collection.folder / "config.json").write_text(collection.config().to_json())
    return collection


def call(command, collection, **options):
    return command(**options, collection=commands.CollectionOptions(output_embeddings_db=collection.database))


def test_outputs_of_every_command_pass_the_check(own, tmp_path, capsys):
    photo = next(own.photos.glob("*.jpg"))
    uuid = "00000000-0000-4000-8000-000000000000"
    files = [own.database, photo, own.folder / "map.tsv", own.folder / "embeddings/000001.sqlite", own.photos / "new"]
    before = snapshot(own.root)
    for file in files:
        report = file.with_name(f"{file.name}.html")
        for command, options in (
            (commands.search, {"uuid": uuid, "html": file}),
            (commands.duplicates, {"html": file}),
            *((commands.export, {option: file}) for option in ("parquet", "npy", "atlas", "crossfilter")),
            (commands.export, {"previews": file}),
            *([(commands.report, {"file": report})] if file != own.database else []),
        ):
            with pytest.raises(InputError, match="Nothing was written"):
                call(command, own, force=True, **options)
    assert snapshot(own.root) == before
    sheet = tmp_path / "sheet.html"
    assert f"look at: {sheet.as_uri()}" in call(commands.search, own, uuid=uuid, html=sheet)
    assert "look at" in call(commands.search, own, uuid=uuid, html=sheet)
    with pytest.raises(InputError, match="exists and is an HTML file, not a NumPy file"):
        call(commands.export, own, npy=sheet)


def test_an_export_is_replaced_with_its_list_of_uuids(own, tmp_path):
    for _ in range(2):
        done = call(commands.export, own, npy=tmp_path / "out" / "x.npy", parquet=tmp_path / "x.parquet")
        assert done == f"7 photos in {tmp_path}/out/x.npy, {tmp_path}/out/x.uuids.txt, {tmp_path}/x.parquet"
    (tmp_path / "out" / "x.uuids.txt").write_text("my own list\n")
    with pytest.raises(InputError, match=r"x\.uuids\.txt' exists and is a file of another kind, not a list of UUIDs"):
        call(commands.export, own, npy=tmp_path / "out" / "x.npy")
    with pytest.raises(InputError, match="is given twice; name another file"):
        call(commands.export, own, parquet=tmp_path / "y", atlas=tmp_path / "y")


def test_a_link_stays_a_link(own, tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "sheet.html")
    call(commands.duplicates, own, html=tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "sheet.html").read_text().startswith("<!doctype html>")


def test_a_report_has_a_name_that_snakemake_accepts(own):
    with pytest.raises(InputError, match=r"'x\.pdf' is not a report file; use a name that ends in \.html or \.zip"):
        call(commands.report, own, file=Path("x.pdf"))


# ---- files that Snakemake writes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "contents"),
    [
        ("--report", b"<!doctype html>"),
        ("--report-html-path", b"<!DOCTYPE html>"),
        ("--archive", b"\x1f\x8b"),
        ("--export-cwl", b'{"cwlVersion": "v1.0"}'),
        ("--runtime-profile", b"\nClock type: CPU\nOrdered by: totaltime, desc\n\nname  ncall  tsub  ttot  tavg"),
        ("--generate-unit-tests", None),
    ],
)
def test_snakemake_destroys_nothing_either(own, tmp_path, monkeypatch, option, contents):
    monkeypatch.chdir(own.root)
    photo, config = next(own.photos.glob("*.jpg")), own.config()
    (tmp_path / "diary").write_text("dear")
    refused = [own.database, photo, own.folder / "map.html", own.photos / "new.html", "x/T/shards", "photos/x"]
    for path in [*refused, *([tmp_path / "diary"] if contents else [])]:
        for options in ([option, str(path)], ["summarise", f"{option}={path}", "--cores", "2"]):
            with pytest.raises(InputError, match=f"^{option}: .*; name another f[a-z]+. Nothing was written$"):
                outputs.check_snakemake(options, config)
    if contents:
        (tmp_path / "mine").write_bytes(contents)
    for name in ("mine", "new", "new.zip"):
        outputs.check_snakemake([option, str(tmp_path / name)], config)
    assert (tmp_path / "diary").read_text() == "dear"


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (["--report"], "--report=report.html"),
        (["--report", "../x.html"], "--report=../x.html"),
        (["summarise", "--arch=x.tar.gz"], "--archive=x.tar.gz"),
        (["--report-after-run", "--report", "x.html"], "--report=x.html"),
        (["--generate-unit-tests"], "--generate-unit-tests=.tests/unit"),
        (["--runtime-profile", "x"], "--runtime-profile=x"),
        (["-n", "--quiet"], ""),
    ],
)
def test_files_that_snakemake_writes_are_relative_to_the_current_folder(own, monkeypatch, options, written):
    (own.root / "here").mkdir()
    monkeypatch.chdir(own.root / "here")
    command = snakemake_command([own.root / "config.yaml"], {}, options)
    option, _, path = written.partition("=")
    own_words = [word for word in command[command.index("--cores") :] if word.startswith(option or "--report")]
    expected = f"{option}={Path(own.root, 'here', path)}".replace("here/../", "")
    assert [word for word in own_words if word != "--report-after-run"] == ([expected] if written else [])


# ---- databases of runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("photos/new.sqlite", "it is in the folder of photos '.*photos'"),
        ("photos/sub/new.db", "it is in the folder of photos '.*photos'"),
        ("photos.sqlite", "its state folder '.*photos' would be in the folder of photos '.*photos'"),
        ("out.sqlite", "its state folder '.*out' holds something else, such as 'diary.txt'"),
        ("x/T/embeddings/000001.sqlite", "it is in '.*', the state folder of another collection"),
        ("other/y.sqlite", "it is in '.*', the state folder of another collection"),
        ("theirs.db", "it is another program's database: it has the table 'Albums'"),
        ("photos/sub/{photo}", "the file is not an SQLite database"),
    ],
)
def test_a_run_does_not_take_what_belongs_to_others(place, database, message):
    (place / "out/diary.txt").touch()
    sqlite3.connect(place / "theirs.db").execute("CREATE TABLE Albums (x)").connection.close()
    database = str(place / database.format(photo=DEMO_PHOTOS[0].name))
    with pytest.raises(InputError, match=f"^output_embeddings_db: cannot write to '.*' \\({message}.*\\); choose"):
        check_database_path(database, [str(place / "photos")])


def test_a_run_goes_on_with_its_own_state(place):
    (place / "photos.sqlite").symlink_to(place / "x.sqlite")
    (place / "photos/T/shards").mkdir(parents=True)
    (place / "photos/T/plan.tsv").touch()
    for database in ("x.sqlite", "photos.sqlite", "new.sqlite"):
        check_database_path(str(place / database), [str(place / "photos")])
    (place / "started/T").mkdir(parents=True)
    (place / "started/.lock").touch()
    check_database_path(str(place / "started.sqlite"), [str(place / "photos")])
