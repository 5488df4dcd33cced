"""The report: built by Snakemake, opened in a browser, its tables compared with the database."""

import html
import re
import shutil
import subprocess
import sys

import browser
import pytest
from conftest import DEMO_PHOTOS, PROJECT, Collection, needs_browser


def table(collection, name):
    """Read a table of the report: its rows of text."""
    text = (collection.state / "summary" / f"{name}.html").read_text()
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    return [[html.unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]


@pytest.fixture(scope="module")
def reported(demo_run, tmp_path_factory):
    """A collection with a failed photo and a rejected file, read-only."""
    folder = tmp_path_factory.mktemp("reported") / "collection"
    shutil.copytree(demo_run.folder, folder, symlinks=True)
    collection = Collection(folder)
    (folder / "more" / "00000000-0000-0000-0000-000000000001.jpg").write_bytes(b"\xff\xd8 no photo")
    (folder / "more" / "IMG_1.jpg").write_bytes(b"x")
    collection.run("summarise")
    return collection


@pytest.mark.slow
def test_the_tables_of_the_report_match_the_database(reported):
    outcomes = {name: int(count) for name, count in table(reported, "outcomes")}
    assert outcomes["found"] == 64
    assert outcomes["embedded"] == 62
    assert outcomes["failed"] == 1
    assert sum(count for name, count in outcomes.items() if name != "found") == outcomes["found"]
    assert sorted(row[0].rsplit("/", 1)[-1] for row in table(reported, "failures")) == [
        "00000000-0000-0000-0000-000000000001.jpg",
        "IMG_1.jpg",
    ]
    assert dict(table(reported, "provenance")) == dict(reported.sql("SELECT KEY, VALUE FROM {T}_PROVENANCE"))
    stages = {row[0]: row for row in table(reported, "times")}
    assert {"embed_shard", "fit_umap", "draw_map"} <= stages.keys()
    assert stages["embed_shard"][1] == "2"
    assert float(stages["embed_shard"][3]) > 0
    assert float(dict(table(reported, "quality"))["trustworthiness"]) > 0.5


@pytest.mark.slow
def test_after_a_report_the_next_run_has_nothing_to_do(reported):
    done = reported.snakemake("summarise", "--report", "report.html")
    assert done.returncode == 0, done.stdout
    assert reported.dry_run() == {}


@pytest.mark.parametrize("option", [["--report", "results/photos/{T}/map.html"], ["--export-cwl", "{photo}"]])
def test_a_report_does_not_replace_a_photo_or_the_state(demo, option):
    photo = demo.folder / "more" / "00000000-0000-0000-0000-000000000001.jpg"
    shutil.copy(DEMO_PHOTOS[0], photo)
    before = {path: path.read_bytes() for path in (photo, demo.state / "map.html", demo.database)}
    done = demo.snakemake("summarise", *(word.format(T=demo.state.name, photo=photo) for word in option))
    assert done.returncode == 1
    assert f"{option[0]}: '" in done.stdout
    assert "Nothing was written" in done.stdout
    assert "Traceback" not in done.stdout
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
@needs_browser
def test_the_report_opens_in_a_browser(reported):
    done = reported.snakemake("summarise", "--report", "report.html")
    assert done.returncode == 0, done.stdout
    outcomes = dict(table(reported, "outcomes"))
    with browser.started() as chromium:
        tab = chromium.new_context(offline=True, viewport={"width": 1280, "height": 800}).new_page()
        errors = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((reported.folder / "report.html").as_uri())
        first_page = tab.locator(".prose")
        assert first_page.locator("img").evaluate("image => image.naturalWidth") == 1000
        assert re.search(r"photos\s+/\S*/demo-photos\s+photos\s+/\S*/more\s", first_page.inner_text())
        rows = {
            name: row.split("\t")[-1]
            for row in first_page.locator("table").inner_text().splitlines()
            for name in [row.split("\t")[0]]
        }
        assert rows.items() >= outcomes.items()
        assert float(rows["trustworthiness"]) > 0.5
        tab.get_by_text("Map", exact=True).first.click()
        tab.locator("tr", has_text="the globe").locator("a").first.click()
        globe = tab.frame_locator("iframe")
        assert globe.locator("h1").inner_text() == "62 photos"
        assert errors == []


def test_the_introduction_holds_nothing_to_evaluate():
    for path in (PROJECT / "workflow" / "report").glob("*.rst"):
        assert not re.search(r"[{}]", path.read_text()), path.name


@pytest.mark.slow
def test_a_report_tells_the_present_also_when_too_many_photos_failed(make_collection):
    collection = make_collection(21)
    program = [sys.executable, "-c", "from crossfilter_inference.cli.commands import main; main()"]
    subprocess.run([*program, "run", "--configfile", "config.yaml"], cwd=collection.folder, check=True, timeout=200)
    command = [*program, "report", "--configfile", "config.yaml"]
    [new] = collection.add_photos(1)
    for number in range(5):
        (collection.folder / "photos" / f"00000000-0000-4000-8000-{number:012d}.jpg").write_text("no photo")
    for _ in range(2):  # the second time, there is nothing to do
        (collection.folder / "report.html").unlink(missing_ok=True)
        done = subprocess.run(command, cwd=collection.folder, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 3, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: 5 of 27 photos failed, more than max_failed_share")
        assert "look at: file://" in done.stderr
        assert new in collection.embeddings()
        outcomes = dict(table(collection, "outcomes"))
        assert (outcomes["embedded"], outcomes["failed"]) == ("22", "5")
        assert (collection.folder / "report.html").stat().st_size > 10_000


def test_a_report_without_benchmarks_has_no_times(demo):
    demo.run("summarise")
    assert table(demo, "times") != []
    shutil.rmtree(demo.state / "benchmarks")
    demo.run("summarise", "--forcerun", "summarise")
    assert table(demo, "times") == []
