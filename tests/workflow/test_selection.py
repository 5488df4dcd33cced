"""Selecting photos on the page, looking at them in the strip, and taking them away."""

import csv
import io
import json
from dataclasses import replace

import browser
import numpy as np
import pytest
from matplotlib.path import Path as Outline
from test_page import make_contents, write_page

SELECTED = "() => selectedPhotos()"
STRIP = "() => Array.from(document.querySelectorAll('#pictures button'), (button) => button.dataset.uuid)"


@pytest.fixture(scope="module")
def contents():
    contents = make_contents()
    paths = [f"{path.rsplit('/', 1)[0]}/IMG_{i}.jpg" for i, path in enumerate(contents.paths)]
    return replace(contents, paths=paths, missing=np.ones(12, bool))


@pytest.fixture
def tab(chromium, contents, tmp_path):
    page = write_page(tmp_path, contents)
    permissions = ["clipboard-read", "clipboard-write"]
    with browser.opened(chromium, page, permissions=permissions, accept_downloads=True) as tab:
        yield tab
        assert tab.trouble == []


def places(tab):
    return np.array(tab.evaluate("() => Array.from(onScreen)")).reshape(-1, 3)


def lasso(tab, corners, *keys):
    """Drag around corners with Shift and other keys."""
    for key in ("Shift", *keys):
        tab.keyboard.down(key)
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    for corner in corners[1:]:
        tab.mouse.move(*corner, steps=8)
    tab.mouse.up()
    for key in ("Shift", *keys):
        tab.keyboard.up(key)
    browser.settle(tab)


# About the middle of the globe, as shares of its radius; the twelve photos lie in a row through it.
TRIANGLE = [(-0.7, -0.5), (0.3, -0.5), (-0.4, 0.6)]
STAR = [(-0.95, 0.2), (-0.8, -0.3), (-0.5, 0.2), (0.1, -0.6), (0.4, 0.3), (0.75, -0.4), (0.95, 0.2)]


def on_globe(tab, shares):
    left, top = tab.evaluate("() => view.middle")
    radius = tab.evaluate("() => view.radius")
    return [(left + x * radius, top + y * radius) for x, y in shares]


def test_a_lasso_selects_what_is_inside_and_in_sight(tab):
    for shape in (TRIANGLE, STAR):
        corners, before = on_globe(tab, shape), places(tab)  # the strip takes room from the globe
        lasso(tab, corners)
        inside = Outline([*corners, corners[0]]).contains_points(before[:, :2])
        expected = [i for i in range(12) if inside[i] and before[i, 2] > 0]
        assert 2 < len(expected) < 12
        assert tab.evaluate(SELECTED) == expected
        assert tab.inner_text("#many") == f"{len(expected)} selected"
    assert tab.evaluate("() => state.outline") == [], "the outline is gone"


def test_with_ctrl_a_lasso_adds_with_alt_it_removes_and_escape_clears(tab):
    lasso(tab, on_globe(tab, TRIANGLE))
    first = {*tab.evaluate(SELECTED)}
    lasso(tab, on_globe(tab, STAR), "Control")
    both = {*tab.evaluate(SELECTED)}
    assert first < both
    lasso(tab, on_globe(tab, TRIANGLE), "Alt")
    assert {*tab.evaluate(SELECTED)} == both - first
    longitude = tab.evaluate("() => view.longitude")
    tab.keyboard.press("Escape")
    browser.settle(tab)
    assert tab.evaluate(SELECTED) == []
    assert tab.is_hidden("#strip")
    assert tab.evaluate("() => view.longitude") == longitude, "the globe stayed where it was"


@pytest.mark.slow
def test_on_a_phone_a_button_lets_drags_select(chromium, contents, tmp_path):
    page = write_page(tmp_path, contents)
    with browser.opened(chromium, page, width=390, height=844, has_touch=True) as tab:
        tab.click("#rectangle")
        (left, top), (right, bottom) = on_globe(tab, [(-0.5, -0.3), (0.6, 0.3)])
        x = places(tab)[:, 0]
        tab.mouse.move(left, top)
        tab.mouse.down()
        tab.mouse.move(right, bottom, steps=5)
        tab.mouse.up()
        browser.settle(tab)
        assert tab.evaluate(SELECTED) == [i for i in range(12) if left < x[i] < right]
        assert tab.get_attribute("#rectangle", "aria-pressed") == "true"
        tab.click("#rectangle")
        longitude = tab.evaluate("() => view.longitude")
        tab.mouse.move(left, top)
        tab.mouse.down()
        tab.mouse.move(right, bottom, steps=5)
        tab.mouse.up()
        browser.settle(tab)
        assert tab.evaluate("() => view.longitude") != longitude, "drags rotate the globe again"
        assert tab.trouble == []


def test_ctrl_and_click_adds_and_removes_one_photo(tab):
    for photo in (5, 7, 5):
        x, y, _ = places(tab)[photo]
        tab.keyboard.down("Control")
        tab.mouse.click(x, y)
        tab.keyboard.up("Control")
        browser.settle(tab)
    assert tab.evaluate(SELECTED) == [7]
    assert tab.evaluate("() => state.current") == -1, "it is not shown"


def test_what_the_filters_leave_in_can_be_selected(tab):
    tab.evaluate("() => { filters.find(({ name }) => name === 'folder').words = ['/photos/forest']; }")
    tab.keyboard.press("Control+a")
    assert tab.evaluate(SELECTED) == [6, 7, 8, 9]
    lasso(tab, on_globe(tab, [(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    assert tab.evaluate(SELECTED) == [6, 7, 8, 9], "a lasso takes no photo that is filtered out"
    tab.evaluate("() => clearFilters()")
    assert tab.evaluate(SELECTED) == [6, 7, 8, 9], "the selection stays"
    tab.fill("#search", "town")
    browser.settle(tab)
    assert tab.inner_text("#many") == "2 found"
    tab.click("#choose-found")
    browser.settle(tab)
    assert tab.input_value("#search") == ""
    assert tab.evaluate(SELECTED) == [6, 7, 8, 9, 10, 11]


def test_the_most_similar_photos_are_added(tab):
    tab.evaluate("() => changeSelection([4])")
    browser.settle(tab)
    tab.fill("#n-similar", "1")
    tab.click("#add-similar")
    assert tab.evaluate(SELECTED) == [4, 5], "each photo is most similar to the next two"
    tab.fill("#n-similar", "2")
    tab.click("#add-similar")
    assert tab.evaluate(SELECTED) == [4, 5, 6, 7]


def test_the_strip_is_sorted_by_time_name_and_likeness(tab, contents):
    chosen = [1, 2, 5, 6, 7, 11]
    tab.evaluate("chosen => changeSelection(chosen)", chosen)
    browser.settle(tab)
    uuids = contents.uuids
    taken = contents.facts["TAKEN"]
    assert tab.evaluate(STRIP) == [uuids[i] for i in sorted(chosen, key=lambda i: (taken[i] or "9", i))]
    tab.select_option("#order", "name")
    browser.settle(tab)
    assert tab.evaluate(STRIP) == [uuids[i] for i in chosen]
    tab.evaluate("() => setCurrent(1)")
    browser.settle(tab)
    assert tab.get_attribute(f"#pictures button[data-uuid='{uuids[1]}']", "aria-current") == "true"
    tab.select_option("#order", "likeness")
    browser.settle(tab)
    assert tab.evaluate(STRIP) == [uuids[i] for i in sorted(chosen, key=lambda i: abs(i - 1))]


def test_a_click_in_the_strip_shows_a_photo_and_a_double_click_opens_it(tab, contents):
    tab.evaluate("() => changeSelection([2, 7, 11])")
    browser.settle(tab)
    tab.select_option("#order", "name")
    browser.settle(tab)
    button = f"#pictures button[data-uuid='{contents.uuids[7]}']"
    tab.click(button)
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == contents.uuids[7]
    assert tab.get_attribute(button, "aria-current") == "true"
    tab.dblclick(button)
    tab.wait_for_function("() => elements.viewer.open")
    assert tab.evaluate("() => series.photos") == [2, 7, 11]
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Escape")
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == contents.uuids[11]


@pytest.mark.slow
def test_a_long_strip_holds_only_the_pictures_in_sight(chromium, tmp_path):
    contents = make_contents()
    n = 3000
    uuids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(n)]
    many = type(contents)(
        "SIGLIP2",
        uuids,
        [f"/photos/{number}.jpg" for number in range(n)],
        {},
        np.zeros(n, bool),
        np.zeros(n),
        np.linspace(-180, 180, n),
        np.zeros((n, 0), np.int32),
        np.zeros((n, 0), np.float32),
        np.zeros(n),
        np.full(n, -1, np.int32),
        [],
        {},
    )
    with browser.opened(chromium, write_page(tmp_path, many)) as tab:
        tab.keyboard.press("Control+a")
        browser.settle(tab)
        assert tab.inner_text("#many") == "3,000 selected"
        assert len(tab.evaluate(STRIP)) < 40
        tab.evaluate("() => { elements.reel.scrollLeft = 1e9; }")
        tab.wait_for_function(f"uuid => ({STRIP})().at(-1) === uuid", arg=uuids[-1])
        tab.evaluate("() => { elements.reel.scrollLeft = 0; }")
        tab.wait_for_function(f"uuid => ({STRIP})()[0] === uuid", arg=uuids[0])
        tab.focus(f"#pictures button[data-uuid='{uuids[3]}']")
        for uuid in uuids[4:34]:  # the focus goes along the strip
            tab.keyboard.press("Tab")
            tab.wait_for_function("uuid => document.activeElement.dataset.uuid === uuid", arg=uuid)
            tab.evaluate("async () => { for (const _ of [1, 2]) await new Promise(requestAnimationFrame); }")
        assert tab.trouble == []


def take_away(tab, way):
    tab.evaluate("() => changeSelection([1, 4, 10])")
    browser.settle(tab)
    tab.select_option("#order", "name")
    browser.settle(tab)
    tab.select_option("#take", way)


def test_paths_and_uuids_are_copied(tab, contents):
    for way, values in (("paths", contents.paths), ("uuids", contents.uuids)):
        take_away(tab, way)
        tab.wait_for_selector("#took-away:has-text('Copied 3')")
        copied = tab.evaluate("() => navigator.clipboard.readText()")
        assert copied == "".join(f"{values[i]}\n" for i in (1, 4, 10))


def test_csv_and_json_are_saved(tab, contents):
    tab.evaluate("name => { data.names[4] = name; }", 'a "b", c\nd.jpg')
    saved = {}
    for way in ("csv", "json"):
        with tab.expect_download() as download:
            take_away(tab, way)
        saved[way] = download.value.path().read_text()
        assert download.value.suggested_filename == f"photos.{way}"
    rows, records = list(csv.DictReader(io.StringIO(saved["csv"]))), json.loads(saved["json"])
    for taken_away in (rows, records):
        assert {row["uuid"] for row in taken_away} == {contents.uuids[i] for i in (1, 4, 10)}
        assert '/photos/beach/a "b", c\nd.jpg' in [row["path"] for row in taken_away]
    by_uuid = {record["uuid"]: record for record in records}
    assert by_uuid[contents.uuids[10]]["camera"] == "NIKON D850"
    assert by_uuid[contents.uuids[1]]["camera"] is None
    assert by_uuid[contents.uuids[10]]["taken"] == contents.facts["TAKEN"][10]
