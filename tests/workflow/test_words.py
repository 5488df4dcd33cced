"""Words for what photos show: on the page, in the search, as names of regions."""

import json
import shutil

import browser
import numpy as np
import pytest
from conftest import DEMO_PHOTOS, page_data

from crossfilter_inference import Collection
from crossfilter_inference.map.words import find_fits, read_words

KOALA = "99eb4d59-1386-586c-ae7f-8bba959478ed"
LABEL = {path.stem: path.parent.name for path in DEMO_PHOTOS}
FOUND = "() => stripPhotos().map((photo) => data.uuids[photo])"


@pytest.fixture(scope="module")
def collection(demo_run):
    return Collection(demo_run.database)


@pytest.fixture(scope="module")
def tab(chromium, demo_run):
    with browser.opened(chromium, demo_run.state / "map.html") as tab:
        yield tab
        assert tab.trouble == []


def search(tab, text):
    """Type into the search field; return the UUIDs in the strip, and what the page says."""
    tab.fill("#search", text)
    browser.settle(tab)
    return tab.evaluate(FOUND), tab.text_content("#found")


@pytest.mark.parametrize(
    ("text", "label", "least"),
    [("koala", "wild animal", 1), ("cutter", "hand tool", 2), ("Fortifications", "castle or temple", 3)],
)
def test_a_word_finds_photos_by_what_they_show(tab, text, label, least):
    found, says = search(tab, text)
    assert len(found) >= least
    assert {LABEL[uuid] for uuid in found} == {label}
    assert says == f"{len(found)} found"
    assert tab.evaluate("() => elements.order.value") == "fit"


def test_the_page_finds_the_photos_that_the_library_finds_in_their_order(tab, collection):
    words, word_embeddings = read_words(str(collection.folder / "words.npz"))
    for fit in find_fits(collection.embeddings, words, word_embeddings)[::97]:
        word = fit.words.split("\n")[-1]
        found, says = search(tab, word)
        best = [collection.uuids[row] for row in fit.photos]
        if fit.stand_out:
            assert found[: len(best)] == best, word
        elif says.startswith("none"):  # a name may have the word
            assert (found, says) == (best, f"none fits; the {len(best)} most similar"), word


def test_a_word_that_no_photo_fits_shows_the_most_similar_ones_and_says_so(tab, collection):
    found, says = search(tab, "pizza")
    assert says == "none fits; the 5 most similar"
    similarity = collection.embeddings @ collection.embed_text("pizza")
    assert found == [collection.uuids[row] for row in np.argsort(-similarity)[:5]]
    assert search(tab, "xyzzy") == ([], "no matching photo")
    assert search(tab, "goldfsh") == ([], "no matching photo; similar words: goldfish, goldfinch")


def test_the_globe_turns_to_what_was_found(tab):
    search(tab, "")
    for text in ("koala", "hand tool", "fish", "palace"):
        search(tab, text)
        assert tab.evaluate("() => isAnyInSight()"), text


def test_words_narrow_what_names_find_and_the_order_returns(tab):
    search(tab, "wild animal")
    tab.select_option("#order", "name")
    found, _ = search(tab, "wild animal koala")
    assert found == [KOALA]
    assert tab.evaluate("() => [elements.order.value, elements.byFit.hidden]") == ["name", True]
    assert search(tab, "koala")[0] == [KOALA]
    assert tab.evaluate("() => [elements.order.value, elements.byFit.hidden]") == ["fit", False]
    search(tab, "")
    assert tab.evaluate("() => [elements.order.value, elements.byFit.hidden]") == ["name", True]


def test_a_search_by_a_word_needs_no_network(demo_run):
    done = demo_run.script("search.py", "--text", "a photo of hand tools", "--n", "5", "--json")
    assert done.returncode == 0, done.stderr
    found = [photo["uuid"] for photo in json.loads(done.stdout)]
    assert [LABEL[uuid] for uuid in found] == ["hand tool"] * 5


def test_folders_with_telling_names_name_the_regions(demo_run):
    names = {region["name"] for region in page_data(demo_run.state / "map.html")["regions"]}
    assert {"fish", "windmill"} < names <= {*LABEL.values()}


def test_words_name_the_regions_of_folders_as_cameras_make_them(make_collection, tmp_path):
    collection = make_collection(
        0, embedding_type="EFFICIENTNET_LITE0", reproject_umap_embeddings=True, names="any", input_dir="camera"
    )
    for number, photo in enumerate(DEMO_PHOTOS):
        folder = collection.folder / "camera" / ("100CANON", "2024-05", "DCIM")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / f"IMG_{number:04d}.JPG")
    assert collection.run()["embed_words"] == 1
    names = {region["name"] for region in page_data(collection.state / "map.html")["regions"]}
    words, _ = read_words(str(collection.state / "words.npz"))
    assert {"fish", "teleost"} & names
    assert "" not in names
    assert names <= {text.split("\n")[0] for text in words}


@pytest.mark.parametrize("word", ["fish", "hand tool", "bird", "koala", "solar dish"])
def test_all_of_a_few_photos_that_are_found_are_shown(tab, word):
    search(tab, word)
    first = tab.evaluate("() => stripPhotos()[0]")
    tab.evaluate("(photo) => goTo(photo)", first)
    browser.settle(tab)
    rows = tab.evaluate(
        """() => photosIn().map((i) => [thumbnails.order.includes(i), state.shown.includes(i),
            ...onScreen.subarray(3 * i, 3 * i + 3)])"""
    )
    room = tab.evaluate("() => [view.left + 60, view.width - view.right - 60, view.top + 90, view.height - 250]")
    in_sight = [row for row in rows if row[4] > 0.3 and room[0] < row[2] < room[1] and room[2] < row[3] < room[3]]
    assert in_sight
    assert all(row[1] for row in in_sight if row[0]), "not hidden by names or by each other"
    boxes = tab.evaluate("() => [state.names, state.boxes]")
    for name in boxes[0]:
        for box in boxes[1]:
            assert (
                abs(name["x"] - box["x"]) > name["half"] - 6 + box["halfWidth"] * 0.5
                or abs(name["y"] - box["y"]) > box["halfHeight"]
            ), (name, box)
