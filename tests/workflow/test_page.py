"""The globe in a real browser: it shows the contents of the database."""

import base64
import json
import re
import shutil
from dataclasses import replace

import browser
import numpy as np
import pytest
from conftest import page_data

from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.map.regions import Region
from crossfilter_inference.view.page import make_page


@pytest.fixture(scope="module")
def page(demo_run):
    return demo_run.state / "map.html"


@pytest.fixture(scope="module")
def tab(chromium, page):
    with browser.opened(chromium, page) as tab:
        yield tab


@pytest.fixture(autouse=True)
def start_anew(tab):
    """Reset the page before each test, and check afterwards that nothing went wrong."""
    tab.evaluate(
        """() => {
            setCurrent(-1);
            halt();
            elements.search.value = "";
            Object.assign(view, home, { zoom: 1, flatness: 0 });
            elements.flat.setAttribute("aria-pressed", false);
            document.activeElement.blur();
            redraw();
        }"""
    )
    browser.settle(tab)
    yield
    assert tab.trouble == []


@pytest.fixture(scope="module")
def places(demo_run):
    return {uuid: (lat, lon) for uuid, lat, lon in demo_run.sql("SELECT * FROM {T}_UMAP_HAVERSINE")}


def make_contents():
    """Make a map of twelve photos in a row along the equator."""
    n = 12
    uuids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(n)]
    folders = ["beach"] * 6 + ["forest"] * 4 + ["town"] * 2
    longitude = np.linspace(-60, 60, n)
    return MapContents(
        embedding_type="SIGLIP2",
        uuids=uuids,
        paths=[f"/photos/{folder}/{uuid}.jpg" for folder, uuid in zip(folders, uuids, strict=True)],
        facts={
            "TAKEN": [None, None, *(f"{2001 + number % 4}-05-17T12:00:00" for number in range(n - 2))],
            "CAMERA": [None, None, *["Fairphone"] * 6, *["NIKON D850"] * (n - 8)],
        },
        missing=np.arange(n) == 3,
        latitude=np.zeros(n),
        longitude=longitude,
        neighbours=(np.arange(n)[:, None] + [1, 2]).astype(np.int32) % n,
        similarity=np.full((n, 2), 0.8, np.float32),
        kept=np.arange(n) % 3 / 2,
        region_of=np.array([0] * 6 + [1] * 4 + [-1] * 2, np.int32),
        regions=[Region(0, -30, "sea"), Region(0, 30)],
        figures={"trustworthiness": 0.95, "neighbours_kept": 0.3},
    )


def write_page(folder, contents):
    """Write a page without thumbnails."""
    text, _ = make_page(contents, np.arange(len(contents)), {})
    (folder / "map.html").write_text(text)
    return folder / "map.html"


@pytest.fixture(scope="module")
def small(chromium, tmp_path_factory):
    """Open a page with the photos of `make_contents`."""
    with browser.opened(chromium, write_page(tmp_path_factory.mktemp("small"), make_contents())) as small:
        yield small
        assert small.trouble == []


def on_screen(tab, uuid):
    """Return x, y and nearness of a photo."""
    return tab.evaluate(
        "uuid => { const i = data.uuids.indexOf(uuid); return Array.from(onScreen.subarray(3 * i, 3 * i + 3)); }", uuid
    )


def middle_of(tab):
    """Return x and y of the middle of the globe."""
    return tab.evaluate("() => view.middle")


def shown(tab):
    return tab.evaluate("() => Array.from(state.shown, (photo) => data.uuids[photo])")


def hammer(latitude, longitude):
    phi, half = np.radians(latitude), np.radians(longitude) / 2
    divisor = np.sqrt(1 + np.cos(phi) * np.cos(half))
    return 2 * np.cos(phi) * np.sin(half) / divisor, np.sin(phi) / divisor


def test_the_page_has_every_photo_with_its_position_path_and_time(demo_run, page, tab, places):
    images = {uuid: (path, taken) for uuid, path, taken in demo_run.sql("SELECT UUID, PATH, TAKEN FROM {T}_IMAGES")}
    data = page_data(page)
    assert data["uuids"] == sorted(places)
    assert tab.evaluate("() => data.uuids.map((_, i) => path(i))") == [images[uuid][0] for uuid in data["uuids"]]
    assert tab.evaluate("() => data.uuids.map((_, i) => taken(i))") == [images[uuid][1] for uuid in data["uuids"]]
    vectors = np.array(tab.evaluate("() => Array.from(places)")).reshape(-1, 3)
    latitude, longitude = np.radians([places[uuid] for uuid in data["uuids"]]).T
    expected = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    assert np.allclose(vectors, np.column_stack(expected), atol=1e-6)
    assert tab.inner_text("h1") == "62 photos"
    assert tab.inner_text("header p") == "by EFFICIENTNET_LITE0"
    assert "Map quality: trustworthiness 0." in tab.text_content("#help")


def test_the_globe_is_drawn_and_a_drag_rotates_it(tab):
    before, longitude = tab.screenshot(), tab.evaluate("() => view.longitude")
    colours = tab.evaluate(
        """() => { points.draw(view, 6); const gl = points.gl, pixels = new Uint8Array(4 * 200 * 200);
        gl.readPixels(540, 300, 200, 200, gl.RGBA, gl.UNSIGNED_BYTE, pixels); return new Set(pixels).size; }"""
    )
    assert colours > 3
    tab.mouse.move(640, 400)
    tab.mouse.down()
    tab.mouse.move(500, 400, steps=5)
    tab.wait_for_timeout(100)  # a pointer that rests does not throw the globe
    tab.mouse.up()
    browser.settle(tab)
    turned = tab.evaluate("() => view.longitude") - longitude
    assert 0.3 < (turned + np.pi) % (2 * np.pi) - np.pi < 0.6, "as far as the pointer moved"
    assert tab.screenshot() != before


def test_zooming_in_shows_more_thumbnails(tab):
    visible = """() => data.uuids.filter((_, i) =>
        onScreen[3 * i + 2] > 0.2 && Math.hypot(onScreen[3 * i] - 640, onScreen[3 * i + 1] - 400) < 300)"""
    few, there = len(shown(tab)), len(tab.evaluate(visible))
    assert few < there + 20
    tab.evaluate("() => goTo(0)")  # where no photo is in sight, zooming ends
    browser.settle(tab)
    x, y, _ = tab.evaluate("() => Array.from(onScreen.slice(0, 3))")
    tab.mouse.move(x, y)
    for _ in range(8):
        tab.mouse.wheel(0, -300)
    tab.wait_for_function(f"() => Math.abs(view.zoom - {2.5 * 62**0.5}) < 1e-4")  # the largest zoom
    browser.settle(tab)
    assert {*tab.evaluate(visible)} <= {*shown(tab)}, "at the largest zoom every photo has room"
    boxes = tab.evaluate("() => state.boxes")
    assert [box["photo"] for box in boxes]
    for box in boxes:
        x, y, _ = tab.evaluate("i => Array.from(onScreen.subarray(3 * i, 3 * i + 3))", box["photo"])
        assert abs(box["x"] - x) < 1
        assert abs(box["y"] - y) < 1


def test_hovering_shows_uuid_and_folder(demo_run, tab):
    [uuid] = shown(tab)[:1]
    x, y, _ = on_screen(tab, uuid)
    tab.mouse.move(x, y)
    tab.wait_for_selector("#card:not([hidden])")
    shown_uuid = tab.inner_text("#card .uuid")
    assert shown_uuid in tab.evaluate("() => data.uuids")
    [(path,)] = demo_run.sql(f"SELECT PATH FROM {{T}}_IMAGES WHERE UUID = '{shown_uuid}'")
    assert tab.inner_text("#card .path") == path.removesuffix(f"/{shown_uuid}.jpg")
    tab.mouse.move(3, 400)
    assert tab.is_hidden("#card")


def test_a_click_shows_the_nearest_neighbours_by_embedding(demo_run, tab):
    [uuid] = tab.evaluate("() => [data.uuids[state.boxes.at(-1).photo]]")
    x, y, _ = on_screen(tab, uuid)
    tab.mouse.click(x, y)
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == uuid
    rows = {name: np.frombuffer(row[-5120:], "<f4") for name, row in demo_run.embeddings().items()}
    nearest = sorted((name for name in rows if name != uuid), key=lambda name: -float(rows[name] @ rows[uuid]))[:8]
    buttons = tab.query_selector_all("#neighbours button")
    assert [button.get_attribute("data-uuid") for button in buttons] == nearest
    for button, name in zip(buttons, nearest, strict=True):
        assert button.inner_text() == f"{rows[name] @ rows[uuid]:.2f}"
        assert button.query_selector("img").evaluate("image => image.naturalWidth") > 0
    lines = tab.evaluate("() => mostSimilar(state.current).map(({ photo }) => data.uuids[photo])")
    assert lines == nearest
    link = tab.get_attribute("#open", "href")
    [(path,)] = demo_run.sql(f"SELECT PATH FROM {{T}}_IMAGES WHERE UUID = '{uuid}'")
    assert tab.evaluate("link => decodeURIComponent(new URL(link).pathname)", link) == path
    buttons[0].click()
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == nearest[0]
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#panel")


@pytest.mark.slow
def test_search_finds_a_uuid_in_any_spelling_and_moves_it_to_the_middle(tab):
    uuid = tab.evaluate("() => data.uuids[onScreen.findIndex((v, i) => i % 3 === 2 && v < -0.5) / 3 | 0]")
    assert on_screen(tab, uuid)[2] < 0, "it is on the far side"
    tab.keyboard.press("/")
    tab.keyboard.type(uuid.upper().replace("-", ""))
    tab.keyboard.press("Enter")
    browser.settle(tab)
    assert tab.inner_text("#found") == "1 of 1"
    assert tab.inner_text("#photo .uuid") == uuid
    x, y, near = on_screen(tab, uuid)
    assert abs(x - tab.locator("#panel").bounding_box()["x"] / 2) < 2, "the panel covers the rest"
    assert abs(y - middle_of(tab)[1]) < 2
    assert near > 0.99
    tab.fill("#search", "ffffffffffff")
    tab.press("#search", "Enter")
    assert tab.inner_text("#found") == "no matching photo"
    tab.fill("#search", "")
    assert tab.is_hidden("#found")
    tab.click("#close")
    browser.settle(tab)
    assert abs(on_screen(tab, uuid)[0] - 640) < 2


@pytest.mark.slow
def test_a_click_on_the_legend_rotates_its_photos_to_the_front(tab):
    for name in ("solar panel", "fish"):
        tab.click(f"#legend button:has-text('{name}')")
        browser.settle(tab)
        near = tab.evaluate(
            "name => data.uuids.map((_, i) => COLOURINGS.folder.category(i) === name && onScreen[3 * i + 2])", name
        )
        near = [nearness for nearness in near if nearness is not False]
        assert sum(nearness > 0.5 for nearness in near) > len(near) / 2
    tab.mouse.wheel(0, -3000)
    tab.click("#home")
    browser.settle(tab)
    assert tab.evaluate("() => [view.zoom, view.longitude, view.latitude]") == pytest.approx(
        tab.evaluate("() => [1, home.longitude, home.latitude]")
    )


def test_the_flat_view_is_hammers_projection(tab, places):
    tab.keyboard.press("f")
    browser.settle(tab)
    assert tab.get_attribute("#flat", "aria-pressed") == "true"
    tab.evaluate("() => { Object.assign(view, {longitude: 0, latitude: 0, zoom: 1}); redraw(); }")
    browser.settle(tab)
    radius, (left, top) = tab.evaluate("() => view.radius"), middle_of(tab)
    for uuid, (latitude, longitude) in places.items():
        x, y = hammer(latitude, longitude)
        seen = on_screen(tab, uuid)
        assert np.allclose(seen, [left + x * radius, top - y * radius, 1], atol=0.05)
    tab.keyboard.press("f")
    browser.settle(tab)
    assert tab.evaluate("() => view.flatness") == 0


def test_regions_are_named_after_folders_and_lie_among_their_photos(page, tab):
    data = page_data(page)
    names = [region["name"] for region in data["regions"]]
    folders = {folder.rsplit("/", 1)[-1] for folder in data["folders"]}
    assert {*names} == folders
    assert len(names) == 9
    assert 3 <= len(tab.evaluate("() => state.names.map(({ name }) => name)")) <= 9
    numbers = tab.evaluate("() => Array.from(regionOf)")
    own = tab.evaluate("() => data.uuids.map((_, i) => data.folders[folders[i]].split('/').pop())")
    assert all(names[number] == name for number, name in zip(numbers, own, strict=True) if number >= 0)


@pytest.mark.parametrize("colouring", ["folder", "region", "quality"])
def test_colours_follow_the_menu(tab, colouring):
    by_value = colours_by_value(tab, colouring)
    assert len({*by_value.values()}) >= 5
    legend = tab.inner_text("#legend")
    assert ("0%" in legend) if colouring == "quality" else ("windmill" in legend)


def colours_by_value(tab, colouring):
    """Choose a colouring, and return the colour of each value: photos of one value have one colour."""
    tab.select_option("#colour", colouring)
    browser.settle(tab)
    value = "(COLOURINGS[colouring].category ?? COLOURINGS[colouring].number)(i)"
    pairs = tab.evaluate(f"colouring => Array.from({{ length: n }}, (_, i) => [{value}, colour(i)])", colouring)
    by_value = dict(pairs)
    assert all(by_value[value] == colour for value, colour in pairs)
    return by_value


# The legend of every colouring, on a page with the photos of `make_contents`.
LEGENDS = {
    "folder": ["beach 6", "forest 4", "town 2"],
    "region": ["sea 6", "Region 2 4", "other 2"],
    "time": ["2001-05-17 2004-05-17"],
    "camera": ["Fairphone 6", "NIKON D850 4", "other 2"],
    "quality": ["0% 100%"],
}


@pytest.mark.parametrize("colouring", LEGENDS)
def test_each_colouring_has_its_legend_and_colours(small, colouring):
    by_value = colours_by_value(small, colouring)
    legend = [" ".join(row.inner_text().split()) for row in small.query_selector_all("#legend li")]
    assert legend == LEGENDS[colouring]
    assert len({*by_value.values()}) == len(by_value) >= 3
    if None in by_value:
        assert by_value[None] == "rgb(152,162,173)", "grey is for unknown values"
    for button in small.query_selector_all("#legend button"):
        dot = button.query_selector("i").evaluate("dot => getComputedStyle(dot).backgroundColor.replaceAll(' ', '')")
        assert dot in by_value.values()


def test_the_menu_has_every_colouring_and_each_is_tested(small):
    menu = small.eval_on_selector_all("#colour option", "options => options.map((option) => option.value)")
    assert menu == small.evaluate("() => Object.keys(COLOURINGS)") == [*LEGENDS]
    small.select_option("#colour", menu[0])
    small.focus("#overlay")
    for colouring in [*menu[1:], menu[0]]:
        small.keyboard.press("c")
        assert small.input_value("#colour") == colouring


@pytest.mark.slow
def test_keys_rotate_zoom_step_and_show_the_help(tab):
    start = tab.evaluate("() => ({ ...view })")
    for key in ("ArrowRight", "ArrowUp", "+"):
        tab.keyboard.press(key)
        browser.settle(tab)
    now = tab.evaluate("() => ({ ...view })")
    assert now["longitude"] != start["longitude"]
    assert now["latitude"] > start["latitude"]
    assert now["zoom"] == 1.5
    tab.keyboard.press("n")
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == tab.evaluate("() => data.uuids[0]")
    tab.keyboard.press("p")
    browser.settle(tab)
    assert tab.inner_text("#photo .uuid") == tab.evaluate("() => data.uuids[61]")
    tab.keyboard.press("?")
    assert tab.is_visible("#help")
    tab.keyboard.press("Escape")
    theme = tab.evaluate("() => document.documentElement.dataset.theme")
    tab.keyboard.press("t")
    assert tab.evaluate("() => document.documentElement.dataset.theme") != theme
    tab.keyboard.press("t")


@pytest.mark.slow
def test_no_picture_of_a_similar_photo_is_under_buttons_legend_or_panel(tab):
    tab.evaluate("() => { setCurrent(0); goTo(0); }")
    browser.settle(tab)
    for middle in ("[0, 0]", "[300, 300]", "[-400, 0]", "[0, -350]", "[0, 350]"):
        tab.evaluate(f"() => {{ view.drag(...{middle}); redraw(); }}")
        browser.settle(tab)
        touching = tab.evaluate("""() => state.boxes.filter(({ photo, x, y, halfWidth, halfHeight }) =>
            photo !== state.current && state.obstacles.some(({ left, top, right, bottom }) =>
                x + 0.8 * halfWidth > left && x - 0.8 * halfWidth < right
                && y + 0.8 * halfHeight > top && y - 0.8 * halfHeight < bottom)).map(({ photo }) => photo)""")
        assert touching == [], middle


@pytest.mark.parametrize(("width", "height"), [(390, 844), (360, 640), (320, 568)])
def test_on_a_phone_the_globe_is_between_buttons_and_legend_from_the_start(chromium, page, width, height):
    with browser.opened(chromium, page, width=width, height=height, has_touch=True, is_mobile=True) as phone:
        top, bottom = phone.evaluate("() => [view.middle[1] - view.radius, view.middle[1] + view.radius]")
        edge = phone.evaluate("() => elements.bar.getBoundingClientRect().bottom")
        assert edge < top < bottom < phone.evaluate("() => elements.legend.getBoundingClientRect().top")
        rows = phone.evaluate("() => [...document.querySelectorAll('nav > button')].map((b) => b.offsetTop)")
        assert len({*rows} - {0}) == (1 if width >= 360 else 2)  # 0: hidden


def test_on_a_phone_a_tap_selects_a_photo_and_the_globe_stays_visible(chromium, page):
    with browser.opened(chromium, page, width=390, height=844, theme="light", has_touch=True, is_mobile=True) as phone:
        assert phone.evaluate("() => document.documentElement.dataset.theme") == "light"
        assert phone.evaluate("() => document.documentElement.scrollWidth") <= 390
        uuid = phone.evaluate("() => data.uuids[state.boxes.at(-1).photo]")
        x, y, _ = on_screen(phone, uuid)
        phone.touchscreen.tap(x, y)
        browser.settle(phone)
        assert phone.inner_text("#photo .uuid") == uuid
        panel = phone.locator("#panel").bounding_box()
        assert panel["x"] == 0
        assert panel["y"] + panel["height"] <= 844
        assert phone.evaluate("() => view.height") <= panel["y"] + 1, "the globe is above it"
        assert phone.trouble == []


@pytest.mark.slow
def test_a_page_with_one_photo_and_an_unusual_path(chromium, page, tmp_path):
    text = page.read_text()
    data = page_data(page)
    odd = '</script><b onload="x">&\udce9.jpg'
    data = {
        **data,
        "uuids": data["uuids"][:1],
        "names": [odd],
        "facts": {},
        "regions": [],
        "folders": [f"{data['folders'][0]}/{odd}"],
    }
    for key, n_bytes in (("places", 8), ("folder", 4), ("region", 4), ("quality", 1)):
        data[key] = _cut(data[key], n_bytes)
    data |= {"neighbours": "", "similarities": "", "thumbnails": ""}

    encoded = json.dumps(data).replace("<", "\\u003c")
    text = re.sub('(?s)(id="data" type="application/json">).*?(</script>)', lambda m: m[1] + encoded + m[2], text)
    text = re.sub('(?s)(id="thumbnails" type="text/plain">).*?(</script>)', r"\1\2", text)
    (tmp_path / "map.html").write_text(text)
    with browser.opened(chromium, tmp_path / "map.html") as tab:
        tab.keyboard.press("n")
        browser.settle(tab)
        assert tab.inner_text("#photo .path").endswith(odd.replace("\udce9", "\\xe9"))
        assert tab.get_attribute("#open", "href").endswith("/script%3E%3Cb%20onload%3D%22x%22%3E%26%e9.jpg")
        assert tab.trouble == []


def _cut(text, n_bytes):
    return base64.b64encode(base64.b64decode(text)[:n_bytes]).decode()


CODE = "</script></title></p><script>window.hacked=1</script>"
OPEN_SCRIPT = "<!--<script>"  # after it, the next </script> does not end a script element


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", "file name", "region", "embedding type"])
def test_text_on_the_page_is_never_code(chromium, tmp_path, where):
    contents = make_contents()
    match where:
        case "folder":
            contents.paths[0] = f"/photos/{CODE}/{contents.uuids[0]}.jpg"
        case "file name":
            contents.paths[0] = f"/photos/beach/{OPEN_SCRIPT}.jpg"
        case "region":
            contents.regions[0] = Region(0, 0, CODE)
        case "embedding type":
            contents = replace(contents, embedding_type=CODE)
    with browser.opened(chromium, write_page(tmp_path, contents)) as tab:
        assert tab.evaluate("() => window.hacked") is None
        tab.keyboard.press("n")
        browser.settle(tab)
        match where:
            case "folder":
                assert tab.inner_text("#photo .path") == f"/photos/{CODE}"
            case "file name":
                assert tab.evaluate("() => path(0)") == contents.paths[0]
            case "region":
                assert tab.inner_text("#facts").startswith(CODE)
            case "embedding type":
                assert tab.title() == f"12 photos, {CODE}"
                assert CODE in tab.inner_text("header p")
        assert tab.evaluate("() => window.hacked") is None
        assert tab.trouble == []


def test_a_browser_without_webgl_shows_why_there_is_no_map(chromium, tmp_path):
    without = "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
    without += "function (kind) { return kind === 'webgl2' ? null : get.call(this, kind); }"
    tab = chromium.new_page()
    tab.add_init_script(without)
    tab.goto(write_page(tmp_path, make_contents()).as_uri())
    assert tab.inner_text("#trouble").startswith("Cannot draw the globe: this browser does not support WebGL 2.")
    tab.close()


def test_a_page_that_was_moved_still_works(chromium, page, tmp_path):
    shutil.copy(page, tmp_path / "moved.html")
    with browser.opened(chromium, tmp_path / "moved.html") as tab:
        assert len(shown(tab)) > 10
        assert tab.trouble == []


def test_the_globe_comes_to_rest_wherever_the_panels_leave_it_room(small):
    for start, end in ((46.1, 46.390625), (0.1, 0.3), (1e-17, 0), (310.2, 276.6)):
        small.evaluate("([start, end]) => { view.left = start; state.left = end; redraw(); }", [start, end])
        browser.settle(small)
        assert small.evaluate("() => view.left") == end
    small.evaluate("() => resize()")
