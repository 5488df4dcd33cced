"""The viewer of the globe, in a real browser: it shows originals, and says why it cannot."""

import os
from pathlib import Path

import browser
import pytest
from test_page import make_contents, write_page

SHOWN = """() => ({ isOpen: elements.viewer.open, source: elements.large.src, hasOriginal: !elements.large.hidden,
    story: elements.story.innerText, excuse: elements.excuse.innerText, scale: pose.scale })"""
NEAREST = """() => {
    const far = (i) => Math.hypot(onScreen[3 * i] - innerWidth / 2, onScreen[3 * i + 1] - innerHeight / 2);
    const [photo] = [...state.shown].sort((a, b) => far(a) - far(b));
    return [data.uuids[photo], onScreen[3 * photo], onScreen[3 * photo + 1]]; }"""
RECTANGLE = """() => { const { left, top, width, height } = elements.large.getBoundingClientRect();
    return [left, top, width, height]; }"""


@pytest.fixture
def tab(chromium, demo_run):
    with browser.opened(chromium, demo_run.state / "map.html") as tab:
        yield tab
        originals = {Path(path).as_uri() for (path,) in demo_run.sql("SELECT PATH FROM {T}_IMAGES")}
        assert {*tab.trouble} <= originals, "it asks for nothing else"


def look(tab):
    """Double-click the photo in the middle; return its UUID."""
    uuid, x, y = tab.evaluate(NEAREST)
    tab.mouse.dblclick(x, y)
    wait_for_original(tab)
    return uuid


def wait_for_original(tab):
    tab.wait_for_function("() => elements.viewer.open && elements.large.complete && !elements.large.hidden")


@pytest.mark.slow
def test_a_double_click_opens_the_original_and_arrows_step_through_the_most_alike(tab, demo_run):
    uuid = look(tab)
    paths = dict(demo_run.sql("SELECT UUID, PATH FROM {T}_IMAGES"))
    sizes = {uuid: size for uuid, *size in demo_run.sql("SELECT UUID, WIDTH, HEIGHT FROM {T}_IMAGES")}
    alike = tab.evaluate("uuid => mostSimilar(data.uuids.indexOf(uuid)).map(({ photo }) => data.uuids[photo])", uuid)
    for number, expected in enumerate([uuid, *alike], 1):
        wait_for_original(tab)
        shown = tab.evaluate(SHOWN)
        assert shown["source"].endswith(paths[expected].replace(" ", "%20"))
        assert tab.evaluate("() => [elements.large.naturalWidth, elements.large.naturalHeight]") == sizes[expected]
        assert shown["story"].splitlines()[-2:] == [expected, f"{number} of {1 + len(alike)}"]
        left, top, width, height = tab.evaluate(RECTANGLE)
        assert min(left, top) == pytest.approx(0, abs=1), "it is as large as the window"
        assert (left + width / 2, top + height / 2) == pytest.approx((640, 400), abs=1)
        tab.keyboard.press("ArrowRight")
    assert tab.evaluate(SHOWN) == shown, "the last one is the end"
    tab.keyboard.press("ArrowLeft")
    wait_for_original(tab)
    tab.keyboard.press("Escape")
    browser.settle(tab)
    assert not tab.evaluate(SHOWN)["isOpen"]
    assert tab.inner_text("#photo .uuid") == alike[-2], "the globe goes on where one left off"
    tab.keyboard.press("Enter")
    wait_for_original(tab)
    assert tab.evaluate(SHOWN)["story"].splitlines()[-1] == f"1 of {1 + len(alike)}"


@pytest.mark.slow
def test_the_wheel_magnifies_the_place_under_the_pointer_and_nothing_leaves_the_window(tab):
    look(tab)
    left, top, width, height = tab.evaluate(RECTANGLE)
    x, y = left + 0.7 * width, top + 0.4 * height
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -300)
    tab.wait_for_function("() => pose.scale > 1.3")
    was, scale = (left, top), tab.evaluate(SHOWN)["scale"]
    left, top, width, height = tab.evaluate(RECTANGLE)
    for at, before, pointer, size, room in ((left, was[0], x, width, 1280), (top, was[1], y, height, 800)):
        slack = room - size  # smaller than the window, it is in the middle; larger, it reaches the edges
        wanted = pointer - (pointer - before) * scale
        assert at == pytest.approx(slack / 2 if slack > 0 else min(max(wanted, slack), 0), abs=2)
    tab.mouse.down()
    tab.mouse.move(x - 3000, y, steps=4)
    tab.mouse.up()
    left, _, width, _ = tab.evaluate(RECTANGLE)
    assert left + width == pytest.approx(1280, abs=1), "it stops at the edge"
    tab.mouse.wheel(0, -9000)
    tab.wait_for_timeout(100)
    *_, width, _ = tab.evaluate(RECTANGLE)
    assert width <= 4 * tab.evaluate("() => elements.large.naturalWidth") + 1, "four pixels to a pixel of the original"
    tab.mouse.dblclick(640, 400)
    assert tab.evaluate(SHOWN)["scale"] == 1
    tab.keyboard.press("+")
    assert tab.evaluate(SHOWN)["scale"] > 1
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(SHOWN)["scale"] == 1, "the next photo is seen whole"
    assert not tab.evaluate("() => elements.help.open || flight !== null"), "the keys of the globe rest"


@pytest.mark.slow
def test_a_tap_selects_and_a_tap_on_the_selected_photo_opens_it(chromium, demo_run):
    page = demo_run.state / "map.html"
    with browser.opened(chromium, page, width=390, height=844, has_touch=True) as tab:
        uuid, x, y = tab.evaluate(NEAREST)
        tab.touchscreen.tap(x, y)
        browser.settle(tab)
        assert tab.inner_text("#photo .uuid") == uuid
        assert not tab.evaluate(SHOWN)["isOpen"]
        x, y = tab.evaluate("i => [onScreen[3 * i], onScreen[3 * i + 1]]", tab.evaluate("() => state.current"))
        tab.touchscreen.tap(x, y)
        wait_for_original(tab)
        tab.click("#back")
        assert not tab.evaluate(SHOWN)["isOpen"]


def test_what_cannot_be_shown_is_said(chromium, tmp_path):
    contents = make_contents()
    contents.paths[4] = f"{contents.paths[4].removesuffix('.jpg')}.HEIC"
    contents.paths[5] = contents.paths[5].removesuffix(".jpg")
    reasons = {
        2: "Cannot open the file at its path.",
        3: "The file is missing.",
        4: "This browser cannot show HEIC files.",
        5: "Cannot open the file at its path.",
    }
    with browser.opened(chromium, write_page(tmp_path, contents)) as tab:
        for photo, reason in reasons.items():
            tab.evaluate("photo => { setCurrent(photo); look(photo); }", photo)
            tab.wait_for_function("() => elements.viewer.classList.contains('failed')")
            assert tab.evaluate(SHOWN)["excuse"] == reason
            assert not tab.evaluate(SHOWN)["hasOriginal"]
            tab.keyboard.press("Escape")
        tab.evaluate("() => { elements.search.value = 'forest'; search(); showNext(); open(); }")
        assert tab.evaluate("() => series.photos") == [6, 7, 8, 9], "after a search, one steps through what was found"


@pytest.mark.slow
def test_zooming_in_shows_originals_and_always_leaves_a_photo_in_sight(tab, demo_run):
    uuid, x, y = tab.evaluate(NEAREST)
    sides = []
    for _ in range(12):
        tab.mouse.move(x, y)
        tab.mouse.wheel(0, -300)
        browser.settle(tab)
        x, y = tab.evaluate(
            "uuid => { const i = data.uuids.indexOf(uuid); return [onScreen[3 * i], onScreen[3 * i + 1]]; }", uuid
        )
        box = tab.evaluate("uuid => state.boxes.find(({ photo }) => data.uuids[photo] === uuid)", uuid)
        sides.append(2 * max(box["halfWidth"], box["halfHeight"]))
    assert sides == sorted(sides), "pictures grow"
    assert sides[-1] > 250
    tab.wait_for_function("uuid => originals.images.get(data.uuids.indexOf(uuid))", arg=uuid)
    assert tab.evaluate("uuid => originals.images.get(data.uuids.indexOf(uuid)).width", uuid) > 250
    tab.click("#home")
    browser.settle(tab)
    tab.mouse.move(640, 120)
    for _ in range(15):
        tab.mouse.wheel(0, -300)
        tab.wait_for_timeout(20)
    browser.settle(tab)
    screen = tab.evaluate("() => Array.from({ length: n }, (_, i) => Array.from(onScreen.subarray(3 * i, 3 * i + 3)))")
    assert any(0 < x < 1280 and 0 < y < 800 and near > 0 for x, y, near in screen)


@pytest.mark.slow
def test_a_page_without_its_photos_keeps_its_thumbnails(chromium, demo_run, tmp_path):
    page = tmp_path / "map.html"
    photos = os.path.commonpath([path for (path,) in demo_run.sql("SELECT PATH FROM {T}_IMAGES")])
    page.write_text((demo_run.state / "map.html").read_text().replace(photos, "/nowhere"))
    with browser.opened(chromium, page) as tab:
        _, x, y = tab.evaluate(NEAREST)
        tab.mouse.move(x, y)
        for _ in range(10):
            tab.mouse.wheel(0, -300)
            tab.wait_for_timeout(60)
        browser.settle(tab)
        assert tab.evaluate("() => originals.nFailed") >= 1
        assert tab.evaluate("() => state.boxes.length") >= 1
        assert {*tab.trouble} == {"Failed to load resource: net::ERR_FILE_NOT_FOUND"}
        assert len(tab.trouble) <= 8
