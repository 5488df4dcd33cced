"""A collection with hostile names goes through every output: nothing is executed, and every name is shown as text."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import browser
import pytest
from conftest import DEMO_PHOTOS, PROJECT, needs, new_collection
from hostile_names import NAMES

from crossfilter_inference.util.files import read_tsv
from crossfilter_inference.util.text import printable, read_path

HOSTILE_FOLDER = os.fsdecode(b'it\'s "q" $(touch pwned) `touch pwned` ; # ? %41 \xf0\x9f\x8f\xb0\xe3\x80\x80 caf\xe9')
LABELS = "</script><script>alert(1)<!-- {shard} {{ 7 * 7 }}"
MODEL = "{shard} {{ 7 * 7 }} $(touch pwned) </script> \x1b[31m 🏰 caf\udce9 '\""

pytestmark = pytest.mark.slow


def uuid(number, kind):
    return f"{number:08x}-0000-4000-8000-00000000000{kind}"


def check_output(data):
    """Check that a terminal shows all of an output, and that nothing was evaluated."""
    text = data.decode()
    assert "Traceback" not in text, text[-4000:]
    bad = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert bad <= {"\n", "\u200c", "\u200d"}, bad
    assert not re.search("^error: all is lost", text, re.MULTILINE), "a name begins a line"


class Hostile:
    """A collection of a photo, a broken one, a copy, a stranger and another file for each name."""

    def __init__(self, root):
        self.collection = new_collection(
            root / HOSTILE_FOLDER,
            0,
            input_dir=["photos"],
            reproject_umap_embeddings=True,
            max_failed_share=1,
            labels=LABELS,
            encoders={"COLOUR": {"backend": str(PROJECT / "tests" / "colour_encoder.py"), "model": MODEL}},
        )
        self.folder = self.collection.folder
        photos = self.folder / "photos"
        photos.mkdir(exist_ok=True)
        labels = ["UUID,LABEL"]
        self.photos, self.rejected = {}, set()
        for number, name in enumerate(NAMES):
            folder = photos / name
            folder.mkdir()
            self.photos[uuid(number, 1)] = folder / f"{uuid(number, 1)}.jpg"
            shutil.copy(DEMO_PHOTOS[number], self.photos[uuid(number, 1)])
            if number % 8 == 0:
                (folder / f"{uuid(number, 2)}.jpg").write_text("no photo")
            (folder / "nested").mkdir()
            copy = folder / "nested" / f"{uuid(number, 1).upper()}.JPG"
            shutil.copy(DEMO_PHOTOS[number], copy)
            stranger = folder / f"{name[:240]}.jpg"
            stranger.write_bytes(b"x")
            self.rejected |= {copy, stranger}
            (folder / f"x.{name[:240]}").write_bytes(b"x")
        (self.folder / LABELS).parent.mkdir(parents=True)
        for number, name in enumerate(NAMES[:3] + NAMES[17:20]):
            quoted = name.replace('"', '""')
            labels += [f'{uuid(9 * number + k, 1)},"{quoted}"' for k in range(9)]
        (self.folder / LABELS).write_bytes(os.fsencode("\n".join(labels)))

    def snakemake(self, *options):
        done = subprocess.run(self.collection.command(*options), cwd=self.folder, capture_output=True, timeout=280)
        check_output(done.stdout)
        check_output(done.stderr)
        assert done.returncode == 0, done.stderr.decode()[-4000:]
        return done.stderr.decode() + done.stdout.decode()

    def script(self, name, *options):
        command = [sys.executable, PROJECT / "scripts" / name, "--configfile", "config.yaml", *options]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=200)
        check_output(done.stdout)
        check_output(done.stderr)
        assert done.returncode == 0, done.stderr.decode()[-4000:] + done.stdout.decode()[-4000:]
        return done.stdout.decode()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    hostile = Hostile(tmp_path_factory.mktemp("hostile"))
    hostile.output = hostile.snakemake()
    yield hostile
    assert not [*hostile.folder.parent.rglob("pwned")], "a name was executed"
    assert not (PROJECT / "pwned").exists()


@contextmanager
def opened(chromium, page, photos=()):
    """Open a page; no dialog and no error may appear, and it may load no file but these photos."""
    paths = {*map(os.fsencode, photos)}
    may_load = lambda url: url.startswith("file:") and os.fsencode(file_of(url)) in paths  # noqa: E731
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    tab, trouble = context.new_page(), []
    tab.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    tab.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    is_strange = lambda url: browser.is_foreign(url, page) and not may_load(url)  # noqa: E731
    tab.on("request", lambda request: trouble.append(request.url) if is_strange(request.url) else None)
    tab.goto(page.as_uri())
    yield tab
    tab.wait_for_timeout(300)
    assert trouble == []
    context.close()


def file_of(link):
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(link).path)))


def test_the_database_holds_the_true_path_of_every_photo(hostile):
    rows = dict(hostile.collection.sql("SELECT UUID, PATH FROM {T}_IMAGES"))
    paths = {uuid: Path(read_path(path)) for uuid, path in rows.items()}
    assert {*map(os.fsencode, paths.values())} == {*map(os.fsencode, hostile.photos.values())}
    assert all(path.is_file() for path in paths.values())
    failed = [Path(read_path(path)) for (path,) in hostile.collection.sql("SELECT PATH FROM {T}_FAILURES")]
    assert len(failed) == len(NAMES[::8])
    assert all(path.is_file() for path in failed)


def test_the_list_of_rejected_files_holds_true_paths(hostile):
    rejected = {Path(path) for path, _ in read_tsv(hostile.collection.state / "rejected.tsv", ("PATH", "REASON"))}
    assert rejected == hostile.rejected


def test_a_second_run_has_nothing_to_do(hostile):
    assert "Nothing to be done" in hostile.snakemake("-n")


def test_the_globe_shows_names_as_text_and_links_to_the_files(hostile, chromium):
    with opened(chromium, hostile.collection.state / "map.html", hostile.photos.values()) as tab:
        tab.wait_for_function("() => state.frames > 0")
        shown = tab.evaluate(
            """() => data.uuids.map((uuid, photo) => {
                setCurrent(photo);
                return [uuid, elements.photo.querySelector(".path").textContent, elements.open.href];
            })"""
        )
        assert len(shown) == len(NAMES)
        for uuid, text, link in shown:
            assert text == printable(hostile.photos[uuid].parent)
            assert os.fsencode(file_of(link)) == os.fsencode(hostile.photos[uuid])
        for name in ("folder", "region"):
            tab.select_option("#colour", name)
            legend = tab.locator("#legend").inner_text()
            assert "\x1b" not in legend
        tab.mouse.move(640, 400)
        tab.fill("#search", "<script>")
        tab.keyboard.press("Enter")
        assert tab.locator("#found").inner_text() == "1 of 2"


def test_the_pictures_are_drawn(hostile):
    svg = (hostile.collection.state / "map.svg").read_text()
    assert "<script" not in svg
    assert (hostile.collection.state / "map.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "command",
    [
        ("search.py", "--uuid", uuid(0, 1), "--n", "60"),
        ("search.py", "--image", f"photos/{NAMES[-1]}/{uuid(len(NAMES) - 1, 1)}.jpg", "--n", "60"),
        ("duplicates.py", "--by_cosine_alone", "--least_cosine", "-1"),
    ],
)
def test_contact_sheets_show_names_as_text(hostile, chromium, command):
    output = hostile.script(*command, "--html", "sheet.html")
    with opened(chromium, hostile.folder / "sheet.html") as tab:
        links = tab.locator("a").evaluate_all("links => links.map((link) => link.href)")
        titles = tab.locator("li").evaluate_all("items => items.map((item) => item.title)")
    assert len(links) >= len(NAMES)
    assert all(file_of(link).is_file() for link in links)
    assert {*titles} >= {printable(path) for path in hostile.photos.values()}
    if command[0] == "duplicates.py":
        assert all(printable(path) in output for path in hostile.photos.values())


def test_json_names_the_files(hostile):
    done = hostile.script("search.py", "--uuid", uuid(0, 1), "--n", "60", "--json")
    paths = {photo["uuid"]: photo["path"] for photo in json.loads(done)}
    assert len(paths) == len(NAMES) - 1
    assert all(Path(path) == hostile.photos[uuid] for uuid, path in paths.items())


@needs("pyarrow")
def test_exports_hold_true_paths(hostile):
    from pyarrow import parquet

    hostile.script("export.py", "--parquet", "x.parquet", "--atlas", "atlas.parquet", "--npy", "x.npy")
    for name in ("x.parquet", "atlas.parquet"):
        with (hostile.folder / name).open("rb") as file:  # pyarrow itself opens UTF-8 paths only
            rows = parquet.read_table(file).to_pydict()
        assert [Path(read_path(path)) for path in rows["PATH"]] == [hostile.photos[uuid] for uuid in rows["UUID"]]


def test_every_check_passes(hostile):
    assert hostile.script("verify.py").endswith("all checks passed\n")


def test_the_report_shows_names_as_text(hostile, chromium):
    hostile.snakemake("summarise")
    hostile.snakemake("summarise", "--report", "report.html")
    with opened(chromium, hostile.folder / "report.html") as tab:
        page = tab.locator(".prose").inner_text()
        assert printable(HOSTILE_FOLDER) in page
    with opened(chromium, hostile.collection.state / "summary" / "failures.html") as tab:
        cells = tab.locator("td").all_inner_texts()
    shown = "\n".join(cells).replace("\xa0", " ")
    for path in hostile.rejected:
        assert re.sub(r"\s+", " ", printable(path)) in re.sub(r"\s+", " ", shown)
    assert "{{ 7 * 7 }}" in shown
    assert "/49/" not in shown


NAMES_OF_DATABASES = [
    ":memory:",
    "-x.sqlite",
    "file:x?mode=memory&cache=shared#%41.sqlite",
    os.fsdecode('it\'s "q" $(touch pwned) `touch pwned`; & 🏰\u3000\u202e\x1b[31m café.sqlite'.encode()),
]


@pytest.mark.parametrize("name", NAMES_OF_DATABASES)
def test_a_database_may_have_any_name(make_collection, name):
    collection = make_collection(2, output_embeddings_db=name)
    collection.database = collection.folder / name
    done = subprocess.run(collection.command(), cwd=collection.folder, capture_output=True, timeout=200)
    check_output(done.stderr + done.stdout)
    assert done.returncode == 0, done.stderr.decode()
    assert len(collection.embeddings()) == 2
    program = ["-c", "from crossfilter_inference.cli.commands import main; main()"]
    command = [sys.executable, *program, "verify", "--output_embeddings_db", f"./{name}", "--sample", "0"]
    done = subprocess.run(command, cwd=collection.folder, capture_output=True, timeout=200)
    check_output(done.stderr + done.stdout)
    assert done.stdout.decode().splitlines()[-1].startswith("all checks passed")
    assert not [*collection.folder.rglob("pwned")]


def test_the_original_command_takes_any_path(tmp_path):
    folder = tmp_path / HOSTILE_FOLDER.removesuffix("\udce9")  # Snakemake records the database by its whole path
    photos = folder / "{{ 7 * 7 }} <results> {shard}"
    photos.mkdir(parents=True)
    shutil.copy(DEMO_PHOTOS[0], photos)
    (folder / "🏰").mkdir()
    options = ["--input_dir", photos.name, "--output_embeddings_db", "🏰/a'b é\u2028.sqlite'"]
    options += ["--embedding_type", "EFFICIENTNET_LITE0", "--no-reproject_umap_embeddings"]
    command = [sys.executable, PROJECT / "scripts" / "compute_embeddings.py", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=250)
    check_output(done.stderr + done.stdout)
    assert done.returncode == 0, done.stderr.decode()
    [(path,)] = sqlite3.connect(folder / options[3]).execute("SELECT PATH FROM EFFICIENTNET_LITE0_IMAGES")
    assert Path(read_path(path)) == photos / DEMO_PHOTOS[0].name
    assert not [*tmp_path.rglob("pwned")]
