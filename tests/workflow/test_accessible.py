"""The page for people who use a screen reader or a keyboard: axe-core finds no violation in any state of it."""

import browser
import pytest
from conftest import PROJECT
from test_page import make_contents, write_page

AXE = PROJECT / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: make node_modules/.package-lock.json"),
]

STATES = {
    "the start": "() => {}",
    "filters": "() => { toggleFilters(); filters[1].toggle(filters[1].tops[0]); }",
    "a current photo": "() => setCurrent(4)",
    "a selection": "() => changeSelection([1, 2, 7])",
    "a search": "() => { elements.search.value = 'forest'; search(); }",
    "no match": "() => { elements.search.value = 'nothing'; search(); }",
    "a colouring by number": "() => { elements.colour.value = 'time'; paintChosen(); }",
    "help": "() => ask()",
    "the viewer": "() => { setCurrent(3); look(3); }",
}


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_state_of_the_page_has_a_violation(chromium, tmp_path, theme, width):
    page = write_page(tmp_path, make_contents())
    problems = []
    for name, step in STATES.items():
        with browser.opened(chromium, page, width=width, height=844, theme=theme) as tab:
            tab.evaluate(step)
            browser.settle(tab)
            tab.evaluate(AXE.read_text("utf-8"))
            found = tab.evaluate("() => axe.run({ resultTypes: ['violations'] })")
            for problem in found["violations"]:
                problems += [(name, problem["id"], node["html"][:120]) for node in problem["nodes"]]
    assert problems == []


def test_the_keyboard_reaches_every_control(chromium, tmp_path):
    with browser.opened(chromium, write_page(tmp_path, make_contents()), width=1400) as tab:
        tab.evaluate("() => { toggleFilters(); setCurrent(4); changeSelection([1, 2]); }")
        browser.settle(tab)
        wanted = """() => Array.from(document.querySelectorAll("button, select, input, a[href], [tabindex='0']"))
            .filter((element) => element.checkVisibility({ visibilityProperty: true }))
            .filter((element) => !element.disabled && !element.closest("dialog"))"""
        reached = set()
        for _ in range(120):
            tab.keyboard.press("Tab")
            reached.add(tab.evaluate("() => document.activeElement.outerHTML"))
        assert {*tab.evaluate(f"() => ({wanted})().map((element) => element.outerHTML)")} <= reached
