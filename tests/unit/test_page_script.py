"""The script of the page: JavaScript modules, joined into one."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.map.regions import Region
from crossfilter_inference.view import page

MODULES = {path.name: path.read_text("utf-8") for path in Path(page.__file__).with_name("web").glob("*.js")}


@pytest.fixture(scope="module")
def script():
    no_numbers, no_rows = np.zeros(0), np.zeros((0, 8), np.int32)
    no_regions = np.zeros(0, np.int32)
    contents = MapContents(
        "SIGLIP2", [], [], {}, np.zeros(0, bool), *[no_numbers] * 2, no_rows, no_rows, no_numbers, no_regions, [], {}
    )
    text, _ = page.make_page(contents, np.arange(0), {})
    return text.rpartition("<script>")[2].partition("</script>")[0]


def test_every_module_is_in_the_script_after_those_that_it_imports(script):
    opening = {name: script.index(text.partition("\n")[0]) for name, text in MODULES.items()}
    imports = [
        (name, other) for name in MODULES for other in re.findall(r'^(?:import|\}).* "\./(.*)";$', MODULES[name], re.M)
    ]
    assert ("page.js", "globe.js") in imports
    assert [pair for pair in imports if opening[pair[0]] < opening[pair[1]]] == []


def test_no_name_is_defined_by_two_modules(script):
    names = re.findall(r"^(?:const|let|function|class) (\w+)", script, re.M)
    assert len(names) == len({*names}) > 50


def test_no_import_or_export_is_left(script):
    assert re.findall(r"^(?:import|export)\b.*", script, re.M) == []


def test_texts_of_others_are_text_in_the_page():
    hostile = "</title></script><script>alert(1)</script><!-- {{ 7 * 7 }} $data"
    no_rows, one = np.zeros((1, 0), np.int32), np.zeros(1)
    contents = MapContents(
        *(
            hostile,
            [hostile],
            [f"/{hostile}/x.jpg"],
            {"TAKEN": [hostile]},
            np.zeros(1, bool),
            one,
            one,
            no_rows,
            no_rows,
            one,
            np.zeros(1, np.int32),
        ),
        [Region(0, 0, hostile)],
        {},
    )
    text, _ = page.make_page(contents, np.arange(1), {})
    assert text.count("<script") == text.count("</script>") == 3
    assert "<!--" not in text.partition("<script>")[0]
    assert f"<title>1 photo, {html.escape(hostile)}</title>" in text
    assert f"by {html.escape(hostile)}</p>" in text
    [data] = re.findall(r'type="application/json">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["folders"] == [f"/{hostile}"]
    assert json.loads(data)["regions"][0]["name"] == hostile
