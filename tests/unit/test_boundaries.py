"""Where text of others and outcomes leave the program: contact sheets, report, terminal, exports, exit codes."""

import html
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile_names import NAMES
from verified import UUID

from crossfilter_inference.cli import command, commands
from crossfilter_inference.errors import InputError, TooManyFailed
from crossfilter_inference.run.finish import check_failures
from crossfilter_inference.shards.plan import PlannedImage
from crossfilter_inference.util.files import write_json
from crossfilter_inference.util.text import printable, stored_path
from crossfilter_inference.view.contact_sheet import write_contact_sheet
from crossfilter_inference.view.report import write_summary

pytest_plugins = "verified"


class Reader(HTMLParser):
    """The tags of a page, and all that is shown: texts, tooltips and links."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.titles, self.links = set(), [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        self.links += [value for name, value in attributes if name == "href"]

    def handle_data(self, data):
        self.texts.append(data)


TAGS = {
    *("html", "head", "meta", "link", "title", "style", "body", "h1", "h2", "ol", "li", "img", "span", "small"),
    *"ab",
}


def test_a_contact_sheet_shows_names_as_text(tmp_path):
    for name in NAMES:
        path = f"/{name}/{name}.jpg"
        pictures = [("u", path, name, False), ("", path, "", True)]
        write_contact_sheet(str(tmp_path / "sheet.html"), name, [(name, pictures)], {"u": b"jpeg"})
        page = Reader((tmp_path / "sheet.html").read_text())
        assert page.tags <= TAGS
        assert page.titles == [printable(path)] * 2
        assert page.links == ["data:,", Path(path).as_uri()]
        for text in (name, f"{name}.jpg"):  # as heading, caption or folder, and as the name of an image without UUID
            assert printable(text) in page.texts


@pytest.fixture
def own(collection):
    """A collection that knows the settings of its last run."""
    (collection.folder / "config.json").write_text(collection.config().to_json())
    return collection


def options(collection):
    return commands.CollectionOptions(output_embeddings_db=collection.database)


def test_the_report_shows_names_and_messages_as_text(own, tmp_path):
    name = "<script>alert(1)</script>{{ 7 * 7 }}"
    own.sql("UPDATE T_FAILURES SET PATH = ?, MESSAGE = ?", (f"/{name}/x.jpg", name))
    config = own.folder / "config.json"
    config.write_text(own.config(input_dir=str(own.photos)).to_json().replace(str(own.photos), f"/{name}"))
    (tmp_path / "introduction.rst").write_text("Photos.\n")
    write_summary(str(own.database), str(own.folder), str(tmp_path), str(tmp_path / "introduction.rst"))
    failures, first = ((tmp_path / file).read_text() for file in ("failures.html", "first_page.rst"))
    assert f"<td>/{html.escape(name)}/x.jpg</td>" in failures
    assert "<script" not in failures
    assert "{{" not in first
    assert "<script" not in first
    assert "   <tr><td>photos</td><td>/&lt;script&gt;alert(1)&lt;/script&gt;&#123;&#123; 7" in first


def test_lines_of_a_command_and_its_log_give_no_orders(tmp_path, capsys):
    command.show("a\x1b[2J\nb")
    assert capsys.readouterr().out == "a\\x1b[2J\\nb\n"
    program = (
        "from crossfilter_inference.cli.command import run_job\nfrom crossfilter_inference.errors import InputError\n"
        "def main() -> str:\n    'Do it.'\n    raise InputError('a\\x1b[2J\\nb')\nrun_job(main)"
    )
    words = [sys.executable, "-c", program, "--log", str(tmp_path / "x.log")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stderr == (tmp_path / "x.log").read_text() == "error: a\\x1b[2J\\nb\n"


def test_an_export_holds_the_true_path(own, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    paths = ["/🏰\u3000\x1b[2J/x.jpg", "/caf\udce9/x.jpg"]
    for number, path in enumerate(paths):
        own.sql("UPDATE T_IMAGES SET PATH = ? WHERE UUID = ?", (stored_path(path), UUID(number)))
    commands.export(parquet=tmp_path / "x.parquet", atlas=tmp_path / "y.parquet", collection=options(own))
    for file in ("x.parquet", "y.parquet"):
        assert pandas.read_parquet(tmp_path / file)["PATH"][:2].tolist() == [*map(stored_path, paths)]


def test_a_report_is_written_also_when_too_many_photos_failed_and_the_exit_code_tells(own, tmp_path, monkeypatch):
    calls = []
    done = subprocess.CompletedProcess([], TooManyFailed.exit_code)

    def snakemake(words, **how):
        calls.append(words)
        for word in words:
            if word.startswith("--report="):
                Path(word.removeprefix("--report=")).write_text("<!doctype html>")
        return done

    monkeypatch.setattr(subprocess, "run", snakemake)
    options = commands.CollectionOptions(own.database, [own.root / "config.yaml"])
    file = tmp_path / "report.html"
    assert commands.report(file, collection=options) == ""
    assert ["--report=" in " ".join(words) for words in calls] == [False, True]
    assert file.read_text() == "<!doctype html>"
    monkeypatch.setattr("crossfilter_inference.run.finish._FEWEST_TO_JUDGE", 1)
    own.configure(max_failed_share=0)
    with pytest.raises(TooManyFailed, match="1 of 8 photos failed"):
        commands.report(file, collection=options)
    done.returncode = 1
    with pytest.raises(SystemExit):
        commands.report(file, collection=options)
    assert len(calls) == 5, "after another failure, nothing more is done"


def test_a_run_of_whose_photos_too_many_failed_has_exit_code_3(tmp_path):
    images = [PlannedImage(f"u{number}", "", 1, 1, "000001") for number in range(100)]
    write_json(tmp_path / "embeddings.json", {"n_failures": 11})
    check_failures(str(tmp_path), images, 0.11)
    with pytest.raises(InputError, match="11 of 100 photos failed") as raised:
        check_failures(str(tmp_path), images, 0.1)
    assert raised.value.exit_code == 3
    check_failures(str(tmp_path), images[:20], 0.1)
