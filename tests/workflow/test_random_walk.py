"""A random walk over the page: after each stretch, what is shown agrees with what is filtered and selected.

To take a longer one: WALK=2000 .venv/bin/pytest -n 0 --all tests/workflow/test_random_walk.py
"""

import os
import random
from dataclasses import replace

import browser
import numpy as np
import pytest
from test_address import SHOWN, agree, wait_for_address
from test_page import make_contents, write_page

N_INPUTS = int(os.getenv("WALK", "200"))
STRETCH = 100
KEYS = [
    *"xlrfecntp0+-?/",
    "Escape",
    "Escape",
    "ArrowLeft",
    "ArrowUp",
    "Enter",
    "Tab",
    "Control+a",
    "PageDown",
    "Delete",
]
SIZES = [(1000, 700), (800, 600), (390, 844), (320, 400)]
TEXTS = ["beach", "2001", "nikon", "no such photo", "", "", "é"]

# What must hold whenever the page is at rest.
STATE = """() => {
    const all = Array.from({ length: n }, (_, i) => i);
    const isLeft = (i) => !byHand.some((filter) => outBy[i] & filter.bit);
    const byHand = [...filters.map((filter) => filter.filter), searchFilter, earthFilter];
    return {
        allAgree: all.every((i) => isIn(i) === isLeft(i)),
        inactive: byHand.filter((filter) => !filter.isActive && all.some((i) => outBy[i] & filter.bit)).length,
        nIn: photosIn().length, left: elements.left.textContent, many: elements.many.textContent,
        hasStrip: !elements.strip.hidden, selected: selectedPhotos().length, strip: stripPhotos().length,
        isSearching: searchFilter.isActive, hasPanel: !elements.panel.hidden, current: state.current,
        isFinite: [view.longitude, view.latitude, view.zoom, view.flatness, view.radius].every(Number.isFinite),
        panelUuid: elements.panel.hidden ? "" : elements.photo.querySelector(".uuid").textContent,
        lit: all.filter((i) => painted[4 * i + 3] === 255).length,
        text: elements.search.value.trim(),
    };
}"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1])
def test_page_and_state_agree_after_any_inputs(chromium, tmp_path, seed):
    contents = make_contents()
    places = {"LATITUDE": [None, *np.linspace(-60, 70, 11)], "LONGITUDE": [None, *np.linspace(-170, 170, 11)]}
    page = write_page(tmp_path, replace(contents, facts=contents.facts | places, missing=np.ones(12, bool)))
    chosen = random.Random(seed)
    with browser.opened(chromium, page, accept_downloads=True) as tab:
        for number in range(1, N_INPUTS + 1):
            step(tab, chosen)
            if number % STRETCH == 0:
                check(tab, contents)


def step(tab, chosen):
    """Make one random input."""
    size = tab.viewport_size
    point = lambda: (chosen.uniform(0, size["width"]), chosen.uniform(0, size["height"]))  # noqa: E731
    match chosen.choices(
        ["key", "click", "drag", "wheel", "button", "text", "resize", "back"], [8, 6, 6, 4, 6, 2, 1, 1]
    )[0]:
        case "key":
            tab.evaluate("() => document.activeElement instanceof HTMLSelectElement && document.activeElement.blur()")
            tab.keyboard.press(chosen.choice(KEYS))
        case "click":
            modifier = chosen.choice([None, None, "Control", "Shift"])
            x, y = point()
            if tab.evaluate("([x, y]) => document.elementFromPoint(x, y)?.closest('select') !== null", [x, y]):
                return  # the browser's own menu, not a part of the page
            if modifier:
                tab.keyboard.down(modifier)
            tab.mouse.click(x, y, click_count=chosen.choice([1, 1, 2]))
            if modifier:
                tab.keyboard.up(modifier)
        case "drag":
            modifier = chosen.choice([None, "Shift", "Alt"])
            if modifier:
                tab.keyboard.down(modifier)
            tab.mouse.move(*point())
            tab.mouse.down()
            for _ in range(chosen.randint(1, 4)):
                tab.mouse.move(*point())
            tab.mouse.up()
            if modifier:
                tab.keyboard.up(modifier)
        case "wheel":
            tab.mouse.move(*point())
            tab.mouse.wheel(0, chosen.uniform(-600, 600))
        case "button":
            tab.evaluate(
                """share => { const all = [...document.querySelectorAll("button")].filter((e) => e.checkVisibility());
                if (all.length) all[Math.floor(share * all.length)].click(); }""",
                chosen.random(),
            )
        case "text":
            tab.evaluate(
                "text => { elements.search.value = text; elements.search.dispatchEvent(new Event('input')); }",
                chosen.choice(TEXTS),
            )
        case "resize":
            width, height = chosen.choice(SIZES)
            tab.set_viewport_size({"width": width, "height": height})
        case "back":
            before = "navigation.entries()[navigation.currentEntry.index - 1]"
            tab.evaluate(f"() => {{ if ({before}?.sameDocument) history.back(); }}")


def check(tab, contents):
    """Check what must hold, and that a reload changes nothing."""
    tab.evaluate(
        "() => { for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close(); halt(); redraw(); }"
    )
    browser.settle(tab)
    now = tab.evaluate(STATE)
    n_in = now["nIn"]
    assert now["allAgree"]
    assert now["inactive"] == 0
    assert now["isFinite"]
    assert now["lit"] == n_in
    assert now["left"] == ("" if n_in == 12 else f"{n_in} of 12 photos")
    assert now["isSearching"] == bool(now["text"])
    if now["isSearching"]:
        assert now["strip"] == n_in
    else:
        assert now["strip"] == now["selected"]
    assert now["hasStrip"] == (now["strip"] > 0)
    if now["hasStrip"]:
        assert now["many"] == f"{now['strip']} {'found' if now['isSearching'] else 'selected'}"
    assert now["hasPanel"] == (now["current"] >= 0)
    assert now["panelUuid"] == (contents.uuids[now["current"]] if now["hasPanel"] else "")
    wait_for_address(tab)
    shown = tab.evaluate(SHOWN)
    tab.reload()
    tab.wait_for_function("() => state.frames > 0")
    browser.settle(tab)
    assert agree(tab.evaluate(SHOWN), shown), "a reload changes nothing"
    assert tab.trouble == []
