"""The address of the page: it says what is shown, so that links, Back and reloading work."""

import browser
import pytest
from test_page import make_contents, write_page

# What is shown, as far as the address says it.
SHOWN = """() => ({
    current: state.current, selected: selectedPhotos(), isIn: Array.from({ length: n }, (_, i) => isIn(i)),
    words: filters.map((filter) => filter.words), search: elements.search.value, colour: elements.colour.value,
    view: [view.longitude, view.latitude, view.zoom, view.flatness],
    theme: document.documentElement.dataset.theme })"""


def wait_for_address(tab):
    """Wait until the address is written, a while after the last change."""
    tab.wait_for_function("() => writing === 0")


def agree(first, second):
    """Return whether two pages show the same; the address has three digits of the view."""
    others = [{name: value for name, value in shown.items() if name != "view"} for shown in (first, second)]
    return others[0] == others[1] and first["view"] == pytest.approx(second["view"], abs=2e-3)


@pytest.fixture
def page(tmp_path):
    return write_page(tmp_path, make_contents())


def change(tab):
    """Change all that the address says."""
    tab.keyboard.press("ArrowRight")
    browser.settle(tab)
    tab.keyboard.press("+")
    browser.settle(tab)
    tab.evaluate(
        """() => { filters.find(({ name }) => name === "folder").words = ["/photos/beach", "/photos/town"];
        filters.find(({ name }) => name === "time").words = ["2001-01-01T00:00:00..2003-01-01T00:00:00"];
        changeSelection([2, 4, 11]); setCurrent(4); elements.colour.value = "camera"; paintChosen();
        elements.search.value = "2002"; search(); }"""
    )
    tab.keyboard.press("f")
    browser.settle(tab)
    wait_for_address(tab)


def test_a_link_shows_the_same_and_reloading_changes_nothing(chromium, page):
    with browser.opened(chromium, page) as tab:
        change(tab)
        shown, link = tab.evaluate(SHOWN), tab.evaluate("() => location.href")
        assert shown["selected"] == [2, 4, 11]
        assert 0 < sum(shown["isIn"]) < 12
        tab.reload()
        browser.settle(tab)
        assert agree(tab.evaluate(SHOWN), shown)
        assert tab.evaluate("() => location.href") == link
        assert tab.trouble == []
    with browser.opened(chromium, page) as other:
        assert other.evaluate("() => location.hash") == "", "nothing is said about the start"
        other.goto(link)
        browser.settle(other)
        assert agree(other.evaluate(SHOWN), shown)
        assert other.trouble == []


def test_back_and_forward_go_through_what_was_shown(chromium, page):
    with browser.opened(chromium, page) as tab:
        start = tab.evaluate(SHOWN)
        seen = [start]
        steps = (
            "() => setCurrent(5)",
            "() => changeSelection([1, 2, 3])",
            "() => { filters.find(({ name }) => name === 'camera').words = ['Fairphone']; }",
        )
        for step in steps:
            tab.wait_for_timeout(1600)
            tab.evaluate(step)
            browser.settle(tab)
            wait_for_address(tab)
            seen.append(tab.evaluate(SHOWN))
        for expected in reversed(seen[:-1]):
            tab.evaluate("() => history.back()")
            tab.wait_for_timeout(300)
            browser.settle(tab)
            assert agree(tab.evaluate(SHOWN), expected)
        tab.evaluate("() => history.forward()")
        tab.wait_for_timeout(300)
        browser.settle(tab)
        assert agree(tab.evaluate(SHOWN), seen[1])
        assert tab.trouble == []


@pytest.mark.parametrize(
    "words",
    [
        "view=nan,1,2,3",
        "view=1e9,-1e9,1e9,7",
        "photo=ffffffffffff&selected=000000",
        "time=x..y&quality=9..1&folder=/nowhere&camera=%00",
        "colour=<b>&search=%F0%9F%8F%B0",
        "__proto__=1&constructor=2",
    ],
)
def test_a_damaged_address_is_harmless(chromium, page, words):
    with browser.opened(chromium, page) as tab:
        start = tab.evaluate(SHOWN)
        tab.goto("about:blank")
        tab.goto(f"{page.as_uri()}#{words}")
        browser.settle(tab)
        shown = tab.evaluate(SHOWN)
        assert shown["current"] == -1
        assert shown["selected"] == []
        assert shown["colour"] == start["colour"]
        assert tab.evaluate("() => [view.longitude, view.latitude, view.zoom, view.flatness].every(Number.isFinite)")
        assert tab.evaluate("() => view.zoom <= view.nearest && view.flatness <= 1")
        assert tab.trouble == []


def test_the_theme_is_remembered(chromium, page):
    with browser.opened(chromium, page, theme="dark") as tab:
        tab.keyboard.press("t")
        assert tab.evaluate(SHOWN)["theme"] == "light"
        tab.reload()
        browser.settle(tab)
        assert tab.evaluate(SHOWN)["theme"] == "light"
        tab.keyboard.press("t")
        assert tab.evaluate(SHOWN)["theme"] == "dark"
