"""Text for people, and the escapes of text of others."""

import html.parser
import json
import logging
import os
import random
import re
import sqlite3
import sys
import unicodedata

import docutils.core
import jinja2
import pytest
import yaml
from conftest import PROJECT
from hostile_names import NAMES
from snakemake.cli import parse_config

from crossfilter_inference.util.files import read_tsv, write_tsv
from crossfilter_inference.util.text import (
    Html,
    PrintableFormatter,
    counted,
    duration,
    printable,
    read_path,
    rst,
    script_json,
    stored_path,
    yaml_text,
)

PATHS = [f"/photos/{name}/x.jpg" for name in NAMES]


@pytest.mark.parametrize(("n", "text"), [(0, "0 photos"), (1, "1 photo"), (2, "2 photos"), (12345, "12,345 photos")])
def test_a_count_of_one_is_singular(n, text):
    assert counted(n, "photos") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "10 s"), (44, "40 s"), (99, "100 s"), (100, "2 min"), (3600, "60 min"), (7300, "2 h")]
)
def test_a_duration_is_rounded(seconds, text):
    assert duration(seconds) == text


def random_paths(n=2_000):
    """Paths of random bytes, those that mean something in one of the languages more often."""
    dice = random.Random(1)
    letters = [*range(1, 256), *b"\t\n\r\"'\\%{}<&$`" * 8]
    return [os.fsdecode(b"/" + bytes(dice.choices(letters, k=dice.randrange(1, 40)))) for _ in range(n)]


def test_any_path_can_be_printed():
    assert printable("a\nb\udce9é") == "a\\nb\\xe9é"
    assert printable("\x1b[31m\u202e\t\r\x9b\u2028") == "\\x1b[31m\\u202e\\t\\r\\x9b\\u2028"


def test_letters_spaces_and_emoji_are_printed_as_they_are():
    text = "wide\u3000space, 🏰 👨\u200d👩\u200d👧, a\u0308ö, \u00a0, 写真, <&> \\ % {}"
    assert printable(text) == text


def test_nothing_printable_is_invisible_or_an_order():
    shown = printable("".join(map(chr, [*range(0x20000), *range(0xE0000, 0xE0200), 0x10FFFD])))
    bad = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert bad == {"\u200c", "\u200d"}
    shown.encode()


def texts_of(page):
    """Parse HTML; return its texts, the names of its elements, and the values of their attributes."""
    texts, tags, values = [], [], []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data):
            texts.append(data)

        def handle_starttag(self, tag, attributes):
            tags.append(tag)
            values.extend(value for _, value in attributes)

        def handle_comment(self, data):
            tags.append("comment")

    reader = Reader()
    reader.feed(page)
    reader.close()
    return "".join(texts), tags, values


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_html_is_text(name):
    page = Html('<p title="$name">$name</p>').fill(name=name)
    assert texts_of(page) == (printable(name), ["p"], [printable(name)])
    single = Html("<p title='$name'></p>").fill(name=name)
    assert texts_of(single) == ("", ["p"], [printable(name)])
    assert texts_of(Html.of([Html("<b>"), name, Html("</b>")])) == (printable(name), ["b"], [])


def test_html_in_html_stays_html():
    assert Html("<ul>$rows</ul>").fill(rows=Html.of([Html("<li>"), "<"])) == "<ul><li>&lt;</ul>"
    assert not isinstance(Html("<b>") + "x", Html), "a sum of HTML and text is text"


@pytest.mark.parametrize("name", [*NAMES, "</script><script>alert(1)</script>", "<!-- <script>", "]]>", "&quot;"])
def test_a_name_in_the_data_of_a_page_cannot_end_them(name):
    text = script_json({"name": name})
    assert json.loads(text) == {"name": name}
    assert not {*"<>&"} & {*text}
    assert text.isascii()


def rendered(source):
    """Read a first page as Snakemake's report does."""
    text = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source).render()
    return docutils.core.publish_parts(text, writer="html5", settings_overrides={"report_level": 5})["body"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_report_is_text(name):
    cell = Html("<td>$name</td>\n<td>end</td>").fill(name=name)
    body = rendered(f"Introduction.\n\n{rst(cell)}")
    assert body.endswith("</p>\n" + re.sub(r"[{}]", lambda c: f"&#{ord(c[0])};", cell))
    assert texts_of(body)[0].split("\n", 1)[1].strip("\n") == f"{printable(name)}\nend".strip("\n")


@pytest.mark.parametrize("name", [*NAMES, "\ufffe\uffff\x7f\x80\x85\u2028 \ud83d", "null", "1e3", "'", "a: b", ""])
def test_a_name_in_yaml_is_read_back(name):
    text = yaml_text([name])
    assert re.fullmatch("[ -~]+", text)
    assert yaml.safe_load(text) == [name]
    assert parse_config([f"input_dir={text}", f"database={yaml_text(name)}"])["input_dir"] == [name]
    assert parse_config([f"database={yaml_text(name)}"]) == {"database": name}


def test_any_path_can_be_stored_and_read_back():
    for path in [*PATHS, *random_paths()]:
        stored = stored_path(path)
        assert read_path(stored) == path
        assert os.fsencode(read_path(stored)) == os.fsencode(path)
        assert (stored == path) == path.isprintable() or stored in (path, f"file://{stored[7:]}")
        stored.encode()  # UTF-8


def test_a_utf_8_path_is_stored_as_it_is():
    for path in ("/写真\u3000/🏰/a\nb\t\x1b.jpg", "/%E9", "/file:///x"):
        assert stored_path(path) == path
    assert stored_path(os.fsdecode(b"/caf\xe9/%41.jpg")) == "file:///caf%E9/%2541.jpg"


def test_sqlite_returns_the_path_that_was_stored():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (PATH TEXT)")
    paths = [*PATHS, *random_paths()]
    connection.executemany("INSERT INTO t VALUES (?)", [(stored_path(path),) for path in paths])
    assert [read_path(path) for (path,) in connection.execute("SELECT PATH FROM t ORDER BY rowid")] == paths
    connection.close()


def test_a_tsv_file_keeps_every_byte_of_a_path(tmp_path):
    rows = [[path, "", os.fsdecode(os.fsencode(path)[::-1])] for path in [*PATHS, *random_paths()]]
    write_tsv(tmp_path / "t.tsv", ("A", "B", "C"), rows)
    assert [*read_tsv(tmp_path / "t.tsv", ("A", "B", "C"))] == rows


def logged(message, *values, name="crossfilter_inference.x", inner=None, **how):
    record = logging.LogRecord(name, logging.INFO, "", 1, message, values, how.get("exc_info"))
    return PrintableFormatter(inner).format(record)


@pytest.mark.parametrize("name", NAMES)
def test_a_message_of_this_package_is_one_line(name):
    assert logged("%s: damaged", name) == f"{printable(name)}: damaged"


def test_lines_of_other_programs_stay_lines_without_orders():
    assert logged("a\n\x1b[2Jb", name="other") == "a\n\\x1b[2Jb"
    assert logged("a\n\x1b[2Jb", inner=logging.Formatter("> %(message)s")) == "> a\n\\x1b[2Jb"
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        text = logged("internal error:", exc_info=sys.exc_info())
    assert text.startswith("internal error:\nTraceback")
    assert text.endswith("ValueError: \\x1b[2J")


# Values that the configuration restricts to numbers or to a list of words.
HARMLESS = {
    *("threads", "params.type", "params.name", "params.missing_images", "params.generation"),
    *("resources.recompute", "resources.scratch", "resources.batch_size", "resources.device", "resources.n_gpus"),
    *("resources.max_megapixels", "resources.missing_images"),
}


def test_every_text_in_a_shell_command_is_quoted():
    commands = "".join(
        "".join(re.findall(r"^    shell:\n((?:        .*\n)+)", path.read_text(), re.MULTILINE))
        for path in sorted((PROJECT / "workflow" / "rules").glob("*.smk"))
    )
    placeholders = re.findall(r"\{(.*?)\}", commands)
    assert len(placeholders) > 50
    assert {name for name in placeholders if not name.endswith(":q")} <= HARMLESS


def test_only_one_module_escapes():
    library = PROJECT / "workflow" / "crossfilter_inference"
    elsewhere = {
        path.name
        for path in library.rglob("*.py")
        if re.search(r"html\.escape|import html|Markup|\.replace\(\"<\"", path.read_text()) and path.name != "text.py"
    }
    assert elsewhere == set()


def test_the_page_makes_no_html_of_texts():
    for path in (PROJECT / "workflow" / "crossfilter_inference" / "view" / "web").glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|srcdoc", text), path.name
