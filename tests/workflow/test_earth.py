"""The photos where they were taken: the second place of a photo on the page, in a real browser."""

from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest
from conftest import page_data
from test_address import wait_for_address
from test_page import make_contents, write_page

from crossfilter_inference.view import page as page_module

LATITUDE = [48.86, -33.87, 0.0, 78.22, -54.8, None, 35.68, 40.71, None, 64.15, -1.29, 19.43]
LONGITUDE = [2.35, 151.21, 0.0, 15.65, -68.3, None, 139.69, -74.0, 12.0, -21.94, 36.82, -99.13]
UNKNOWN = [5, 8]
PLACES = "() => Array.from(shownPlaces)"


@pytest.fixture
def page(tmp_path):
    contents = make_contents()
    facts = {**contents.facts, "LATITUDE": LATITUDE, "LONGITUDE": LONGITUDE}
    return write_page(tmp_path, replace(contents, facts=facts))


@pytest.fixture
def tab(chromium, page):
    with browser.opened(chromium, page) as tab:
        yield tab
        assert tab.trouble == []


def vectors(latitude, longitude):
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    across = np.cos(latitude)
    return np.column_stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])


def test_a_key_moves_every_photo_to_where_it_was_taken_and_back(tab):
    by_likeness = tab.evaluate(PLACES)
    tab.keyboard.press("e")
    browser.settle(tab)
    known = [i for i in range(12) if i not in UNKNOWN]
    expected = vectors([LATITUDE[i] for i in known], [LONGITUDE[i] for i in known])
    shown = np.array(tab.evaluate(PLACES)).reshape(-1, 3)
    assert np.abs(shown[known] - expected).max() < 1e-5
    assert tab.evaluate("() => Array.from({ length: n }, (_, i) => isIn(i))") == [i in known for i in range(12)]
    opacity = tab.evaluate("() => Array.from({ length: n }, (_, i) => painted[4 * i + 3])")
    assert [i for i in range(12) if opacity[i] == 0] == UNKNOWN, "nobody knows where these were taken"
    assert tab.evaluate("() => state.names") == [], "regions are places by likeness"
    assert tab.inner_text("#left") == "10 of 12 photos"
    tab.click("#earth")
    browser.settle(tab)
    assert tab.evaluate(PLACES) == by_likeness
    assert tab.inner_text("#left") == ""


def test_selection_and_filters_stay_and_what_is_near_on_earth_can_be_selected(tab):
    tab.evaluate("() => { changeSelection([0, 3]); filters[0].words = ['2001-01-01T00:00:00..2003-12-31T00:00:00']; }")
    is_in = tab.evaluate("() => photosIn()")
    tab.keyboard.press("e")
    browser.settle(tab)
    assert tab.evaluate("() => selectedPhotos()") == [0, 3]
    assert tab.evaluate("() => photosIn()") == [i for i in is_in if i not in UNKNOWN]
    tab.evaluate("() => { clearFilters(); Object.assign(view, { latitude: 1, longitude: 0.1, zoom: 1 }); redraw(); }")
    browser.settle(tab)
    places = tab.evaluate("() => [0, 3, 9].map((i) => [onScreen[3 * i], onScreen[3 * i + 1]])")  # of Europe
    (left, top), (right, bottom) = np.min(places, axis=0) - 12, np.max(places, axis=0) + 12
    tab.click("#rectangle")
    tab.mouse.move(left, top)
    tab.mouse.down()
    tab.mouse.move(right, bottom, steps=4)
    tab.mouse.up()
    tab.keyboard.press("e")
    browser.settle(tab)
    assert tab.evaluate("() => selectedPhotos()") == [0, 3, 9]


def test_the_address_and_the_flat_map_know_earth(chromium, page, tab):
    tab.keyboard.press("e")
    browser.settle(tab)
    tab.keyboard.press("f")
    browser.settle(tab)
    wait_for_address(tab)
    shown = tab.evaluate(PLACES)
    link = tab.evaluate("() => location.href")
    with browser.opened(chromium, page) as other:
        other.goto("about:blank")
        other.goto(link)
        browser.settle(other)
        assert other.evaluate(PLACES) == shown
        assert other.get_attribute("#earth", "aria-pressed") == "true"
        assert other.evaluate("() => view.flatness") == 1
        assert other.trouble == []


def test_without_a_place_there_is_no_earth(chromium, tmp_path):
    page = write_page(tmp_path, make_contents())
    assert "land" not in page_data(page)
    with browser.opened(chromium, page) as tab:
        assert tab.is_hidden("#earth")
        tab.keyboard.press("e")
        browser.settle(tab)
        assert tab.evaluate("() => view.earth") == 0
        assert tab.trouble == []


@pytest.mark.slow
def test_land_is_drawn_where_it_is(tab):
    tab.evaluate("() => { thumbnails.order = new Int32Array(); }")
    tab.keyboard.press("e")
    for latitude, longitude, is_land in ((50, 10, True), (30, -45, False), (42, 51, False), (-85, 0, True)):
        angles = np.radians([latitude, longitude]).tolist()
        tab.evaluate("([latitude, longitude]) => { halt(); Object.assign(view, { latitude, longitude }); }", angles)
        tab.evaluate("() => { view.earth = 1; redraw(); }")
        browser.settle(tab)
        pixel = """() => { const [x, y] = view.middle.map((side) => Math.round(side * devicePixelRatio));
            return Array.from(ground.context.getImageData(x + 3, y + 3, 1, 1).data.slice(0, 3)); }"""
        colour = tab.evaluate("() => theme.land")
        expected = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (tab.evaluate(pixel) == expected) == is_land, (latitude, longitude)


def rings():
    """Return the outlines of land: latitude and longitude of their points, in degrees."""
    values = np.fromfile(Path(page_module.__file__).parent / "web" / "land.bin", "<i2").reshape(-1, 2)
    ends = np.flatnonzero(values[:, 0] == 32767)
    return [ring[:-1] / 100 for ring in np.split(values, ends + 1) if len(ring)]


@pytest.mark.parametrize(
    ("name", "latitude", "longitude", "is_land"),
    [
        ("Berlin", 52.5, 13.4, True),
        ("Nairobi", -1.3, 36.8, True),
        ("Denver", 39.7, -105.0, True),
        ("Alice Springs", -23.7, 133.9, True),
        ("Chukotka, beyond the date line", 67.0, -175.5, True),
        ("Iceland", 64.8, -18.5, True),
        ("Tasmania", -42.0, 146.5, True),
        ("North Pole", 89.9, 0.0, False),
        ("Pacific", 0.0, -150.0, False),
        ("Caspian Sea", 42.0, 51.0, False),
        ("Mediterranean Sea", 34.5, 18.0, False),
        ("Tasman Sea", -38.0, 160.0, False),
    ],
)
def test_the_outlines_of_land_are_those_of_earth(name, latitude, longitude, is_land):
    crossed = 0
    for ring in rings():
        here = np.unwrap(ring[:, 1], period=360)
        for turn in (-360, 0, 360):
            x, y = here + turn - longitude, ring[:, 0] - latitude
            x_next, y_next = np.roll(x, -1), np.roll(y, -1)
            keeps = np.abs(x_next - x) < 180  # around a pole, the last edge is none
            rises = (y > 0) != (y_next > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                crossed += int((keeps & rises & (x - y * (x_next - x) / (y_next - y) > 0)).sum())
    assert crossed % 2 == is_land


def test_neither_a_click_nor_a_key_leaves_the_photos_half_way(tab):
    for key, name in (("e", "earth"), ("f", "flatness"), ("e", "earth"), ("f", "flatness")):
        before = tab.evaluate(f"() => view.{name}")
        tab.evaluate(f"() => {{ KEYS.{key}(); requestAnimationFrame(() => {{ halt(); go({{ zoom: 1 }}); }}); }}")
        browser.settle(tab)
        assert tab.evaluate(f"() => view.{name}") == 1 - before


def test_a_search_counts_the_photos_that_are_shown_on_earth(tab):
    tab.fill("#search", "nikon")
    assert tab.text_content("#found") == "4 found"
    tab.fill("#search", "fairphone")
    assert tab.text_content("#found") == "6 found"
    tab.evaluate("() => document.activeElement.blur()")
    tab.keyboard.press("e")
    browser.settle(tab)
    assert tab.text_content("#found") == "6 found, 5 of them shown"
    assert tab.text_content("#left") == "5 of 12 photos"


@pytest.mark.parametrize(
    ("photo", "facts"),
    [
        (3, "sea · Fairphone · 78.220° N, 15.650° E · 0% of its most similar photos are near it on the map"),
        (4, "sea · Fairphone · 54.800° S, 68.300° W · 50% of its most similar photos are near it on the map"),
        (0, "sea · 48.860° N, 2.350° E · 0% of its most similar photos are near it on the map"),
    ],
)
def test_the_panel_names_camera_and_location(tab, photo, facts):
    tab.evaluate("(photo) => setCurrent(photo)", photo)
    assert tab.text_content("#facts") == facts
    tab.evaluate("(photo) => setCurrent(photo)", UNKNOWN[0])
    assert "°" not in tab.text_content("#facts")


@pytest.mark.parametrize("width", [1280, 390])
def test_help_opens_at_its_beginning(chromium, page, width):
    with browser.opened(chromium, page, width=width, height=500) as tab:
        tab.keyboard.press("?")
        tab.wait_for_timeout(100)
        assert tab.evaluate("() => [elements.help.open, elements.help.scrollTop]") == [True, 0]


def test_photos_taken_at_one_place_are_selected_together(chromium, tmp_path):
    contents = make_contents()
    latitude, longitude = LATITUDE.copy(), LONGITUDE.copy()
    for photo, metres in ((3, 0), (7, 90), (8, -90), (9, 150)):
        latitude[photo], longitude[photo] = 48.86 + metres / 111_000, 2.35
    facts = {**contents.facts, "LATITUDE": latitude, "LONGITUDE": longitude}
    with browser.opened(chromium, write_page(tmp_path, replace(contents, facts=facts))) as tab:
        for photo, together in ((0, [0, 3, 7, 8]), (8, [0, 3, 8]), (1, None), (5, None)):
            tab.evaluate("photo => setCurrent(photo)", photo)
            assert tab.is_visible("#here") == (together is not None)
            if together:
                assert tab.inner_text("#here") == f"Select all {len(together)} photos taken here"
                tab.click("#here")
                assert tab.evaluate("() => selectedPhotos()") == together
        assert tab.trouble == []
