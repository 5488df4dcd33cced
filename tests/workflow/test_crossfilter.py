"""The filters of the page, in a real browser: each shows what the others leave in, and all narrow the globe."""

import random
import unicodedata
from dataclasses import replace

import browser
import pytest
from test_page import make_contents, write_page

PANEL = ["time", "folder", "region", "camera", "format", "quality"]
RANGES = ("time", "quality")
CHOOSE = "([name, words]) => { filters.find((filter) => filter.name === name).words = words; }"
IN = "() => Array.from({ length: n }, (_, i) => isIn(i))"
# The counts of a choice filter by category, or of a range filter by bar.
COUNTS = """() => Object.fromEntries(filters.map((filter) => [filter.name, filter instanceof ChoiceFilter
    ? Object.fromEntries(filter.nodes.map(({ key }, i) => [key, filter.counts[i]])) : Array.from(filter.counts)]))"""


@pytest.fixture(scope="module")
def contents():
    """Make twelve photos in a tree of folders, one of them in two spellings of Unicode, in three formats."""
    contents = make_contents()
    spellings = [unicodedata.normalize(form, "Urlaub/Ägypten/Kairo") for form in ("NFC", "NFD", "NFD")]
    folders = ["Urlaub/Norwegen"] * 3 + spellings + ["Garten"] * 4 + ["Urlaub"] * 2
    extensions = ["jpg", "HEIC", "png"] * 4
    paths = [f"/photos/{folder}/{i}.{end}" for i, (folder, end) in enumerate(zip(folders, extensions, strict=True))]
    return replace(contents, paths=paths)


@pytest.fixture(scope="module")
def opened(chromium, contents, tmp_path_factory):
    with browser.opened(chromium, write_page(tmp_path_factory.mktemp("small"), contents)) as tab:
        yield tab
        assert tab.trouble == []


@pytest.fixture
def tab(opened):
    opened.evaluate(
        """() => { clearFilters(); changeSelection([]); setCurrent(-1); elements.search.value = ""; search();
        for (const filter of filters) if (filter instanceof ChoiceFilter) { filter.opened.clear(); filter.refill(); }
        if (elements.filters.hidden) toggleFilters(); }"""
    )
    browser.settle(opened)
    return opened


def facts_of(contents):
    """Return what each filter is about, by photo."""
    return {
        "folder": [unicodedata.normalize("NFC", path.rsplit("/", 1)[0]) for path in contents.paths],
        "region": [{0: "sea", 1: "Region 2"}.get(region, "unknown") for region in contents.region_of.tolist()],
        "camera": [camera or "unknown" for camera in contents.facts["CAMERA"]],
        "format": [{"jpg": "JPEG", "HEIC": "HEIC", "png": "PNG"}[path.rsplit(".", 1)[1]] for path in contents.paths],
        "time": contents.facts["TAKEN"],
        "quality": [round(100 * share) for share in contents.kept.tolist()],
    }


def is_chosen(name, value, words):
    """Return whether a filter leaves a photo in."""
    if not words:
        return True
    if name == "folder":
        return any(value == word or value.startswith(f"{word.rstrip('/')}/") for word in words)
    if name in RANGES:
        low, high = words[0].split("..")
        kind = str if name == "time" else float
        return value is not None and kind(low) <= kind(value) <= kind(high)
    return value in words


WORDS = {
    "folder": [[], ["/photos/Urlaub"], ["/photos/Urlaub/Ägypten"], ["/photos/Garten", "/photos/Urlaub/Norwegen"]],
    "region": [[], ["sea"], ["Region 2", "unknown"]],
    "camera": [[], ["Fairphone"], ["NIKON D850", "unknown"]],
    "format": [[], ["HEIC", "PNG"]],
    "time": [[], ["2002-01-01T00:00:00..2003-12-31T00:00:00"], ["2001-05-17T12:00:00..2001-05-17T12:00:00"]],
    "quality": [[], ["0.0..40.0"], ["50.0..100.0"]],
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_every_filter_counts_what_the_others_leave_in(tab, contents, seed):
    chosen = {name: random.Random(f"{seed} {name}").choice(words) for name, words in WORDS.items()}
    for name, words in chosen.items():
        tab.evaluate(CHOOSE, [name, words])
    browser.settle(tab)
    facts = facts_of(contents)
    passes = {name: [is_chosen(name, value, chosen[name]) for value in values] for name, values in facts.items()}
    expected = [all(passes[name][i] for name in facts) for i in range(12)]
    assert tab.evaluate(IN) == expected
    counts = tab.evaluate(COUNTS)
    assert list(counts) == PANEL
    for name, values in facts.items():
        left = [i for i in range(12) if all(passes[other][i] for other in facts if other != name)]
        if name in RANGES:
            assert sum(counts[name]) == sum(values[i] is not None for i in left)
            continue
        for key, count in counts[name].items():
            assert count == sum(is_chosen(name, values[i], [key]) for i in left), (name, key)
    n_in = sum(expected)
    assert tab.inner_text("#left") == ("" if n_in == 12 else f"{n_in} of 12 photos")
    dimmed = tab.evaluate("() => Array.from({ length: n }, (_, i) => painted[4 * i + 3] < 255)")
    assert dimmed == [not is_in for is_in in expected], "the globe dims what is out"


def row(tab, text):
    return tab.locator(f"#facets .choice:has(span:text-is('{text}'))")


def test_a_click_chooses_and_a_tree_of_folders_opens(tab, contents):
    assert [fold.inner_text() for fold in tab.query_selector_all(".facet:has(.fold) .choice span")] == [
        "Garten",
        "Urlaub",
    ], "where they all lie is left out"
    row(tab, "Urlaub").click()
    browser.settle(tab)
    assert tab.inner_text("#left") == "8 of 12 photos"
    assert row(tab, "Urlaub").get_attribute("aria-pressed") == "true"
    tab.click("button[aria-label='Show or hide the folders in Urlaub']")
    tab.click("button[aria-label='Show or hide the folders in Ägypten']")
    browser.settle(tab)
    assert [row(tab, name).inner_text().split() for name in ("Ägypten", "Kairo", "Norwegen")] == [
        ["Ägypten", "3"],
        ["Kairo", "3"],
        ["Norwegen", "3"],
    ]
    row(tab, "Urlaub").click()
    row(tab, "Kairo").click()
    browser.settle(tab)
    assert tab.inner_text("#left") == "3 of 12 photos"
    tab.click("#unfilter")
    browser.settle(tab)
    assert tab.inner_text("#left") == ""
    assert tab.is_disabled("#unfilter")


def test_a_dimmed_photo_is_not_under_the_pointer(tab):
    row(tab, "Garten").click()
    browser.settle(tab)
    under = tab.evaluate(
        "() => Array.from({ length: n }, (_, i) => photoAt(onScreen[3 * i], onScreen[3 * i + 1]) === i)"
    )
    assert under == tab.evaluate(IN)
    assert sum(under) == 4


def plot(tab, name="Time"):
    return tab.locator(f".facet:has(h2:has-text('{name}')) .plot")


def drag(tab, box, start, end):
    """Drag over a histogram, from one share of its width to another."""
    tab.mouse.move(box["x"] + start * box["width"], box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + end * box["width"], box["y"] + 20, steps=4)
    tab.mouse.up()
    browser.settle(tab)


def test_a_brush_chooses_a_range_and_its_ends_can_be_moved(tab):
    box = plot(tab).bounding_box()
    drag(tab, box, 0.5, 0.2)  # photos were taken in May of 2001, 2002, 2003 and 2004
    assert tab.inner_text("#left") == "3 of 12 photos", "those of 2002"
    drag(tab, box, 0.5, 0.95)
    assert tab.inner_text("#left") == "5 of 12 photos", "those of 2002 and 2003"
    low, high = (end[:4] for end in tab.inner_text(".facet h2 output").split(" \N{EN DASH} "))
    assert (low, high) == ("2001", "2004")
    last = plot(tab).locator(".handle").nth(1)
    last.focus()
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    browser.settle(tab)
    assert tab.inner_text("#left") == "7 of 12 photos", "with those of 2004"
    assert last.get_attribute("aria-valuetext").startswith("2004")
    tab.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    browser.settle(tab)
    assert tab.inner_text("#left") == "", "a click ends it"


def test_the_axis_of_time_zooms_from_years_to_hours(tab):
    box = plot(tab).bounding_box()
    ends = "() => byTime.ends.map((end) => end.textContent)"
    assert tab.evaluate(ends) == ["2001-05", "2004-05"]
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    for _ in range(40):
        tab.mouse.wheel(0, -200)
    browser.settle(tab)
    first, last = tab.evaluate("() => byTime.axis")
    assert last - first == pytest.approx(48 * 3_600_000), "a bar is an hour"
    assert all(len(end) == len("2002-11-16 12:00") for end in tab.evaluate(ends))
    tab.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 20)
    browser.settle(tab)
    assert tab.evaluate(ends) == ["2001-05", "2004-05"]


def test_filters_that_could_leave_nothing_out_are_not_there(chromium, tmp_path):
    contents = make_contents()
    plain = replace(
        contents,
        paths=[f"/photos/{uuid}.jpg" for uuid in contents.uuids],
        facts={},
        region_of=contents.region_of * 0,
        kept=contents.kept,
    )
    with browser.opened(chromium, write_page(tmp_path, plain)) as tab:
        assert tab.evaluate("() => filters.map(({ name }) => name)") == ["quality"]
        assert tab.trouble == []


def test_many_categories_are_shown_on_demand_and_those_that_are_left_come_first(chromium, tmp_path):
    contents = make_contents()
    cameras = [f"camera {i:02}" for i in range(12)]
    with browser.opened(chromium, write_page(tmp_path, replace(contents, facts={"CAMERA": cameras}))) as tab:
        tab.keyboard.press("x")
        browser.settle(tab)
        rows = "() => Array.from(filters.find(({ name }) => name === 'camera').list.children, (row) => row.innerText)"
        names = lambda: [text.split("\n")[0] for text in tab.evaluate(rows)]  # noqa: E731
        assert names() == cameras[:7]
        tab.click("text=Show all 12")
        assert names() == cameras
        tab.click("text=Show fewer")
        tab.evaluate(CHOOSE, ["folder", ["/photos/town"]])
        browser.settle(tab)
        assert {"camera 10", "camera 11"} <= {*names()}, "cameras of the town"
        assert tab.trouble == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("garten", {6, 7, 8, 9}),
        ("AGYPTEN", {3, 4, 5}),  # without case and accents
        ("nikon 2003", {8}),
        ("2001-05", {4, 8, 2}),
        ("00000003", {3}),
        ("sea fairphone", set()),  # regions have a filter
        ("/norwegen/1.", {1}),
        ("nothing of that", set()),
    ],
)
def test_search_finds_as_one_types(tab, contents, text, expected):
    if text == "nikon 2003":
        years = contents.facts["TAKEN"]
        expected = {i for i in range(12) if contents.facts["CAMERA"][i] == "NIKON D850" and years[i][:4] == "2003"}
    if text == "2001-05":
        expected = {i for i, taken in enumerate(contents.facts["TAKEN"]) if taken and taken.startswith("2001-05")}
    tab.fill("#search", text)
    browser.settle(tab)
    assert {i for i, is_in in enumerate(tab.evaluate(IN)) if is_in} == expected
    shown = f"{len(expected)} found" if expected else "no matching photo"
    assert tab.inner_text("#found") == shown
    uuids = {button.get_attribute("data-uuid") for button in tab.query_selector_all("#pictures button")}
    assert uuids == {contents.uuids[i] for i in expected}, "all stand in the strip"
    assert tab.is_visible("#strip") == bool(expected)
    tab.fill("#search", "")
    browser.settle(tab)
    assert tab.evaluate(IN) == [True] * 12
    assert tab.is_hidden("#strip")
