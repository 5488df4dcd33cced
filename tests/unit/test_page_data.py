"""The data of the page, without a browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from crossfilter_inference.config import PageSettings
from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.photos.image import THUMBNAIL_SIDE
from crossfilter_inference.view.page import DEFAULTS, choose_photos, make_page


def contents_of(n, missing=()):
    return MapContents(
        "SIGLIP2",
        [f"{number:08x}-0000-4000-8000-000000000000" for number in range(n)],
        [f"/photos/{number}.jpg" for number in range(n)],
        {},
        np.isin(np.arange(n), missing),
        *np.zeros((2, n)),
        ((np.arange(n)[:, None] + [1, 2, 3]) % n).astype(np.int32),
        np.full((n, 3), 0.5, np.float32),
        np.zeros(n),
        np.full(n, -1, np.int32),
        [],
        {},
    )


def data_of_page(n, shown, missing=()):
    text, _ = make_page(contents_of(n, missing), np.array(shown), {})
    [data] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<i4").tolist()


def test_neighbours_are_numbered_as_the_photos_of_a_page_that_shows_a_sample():
    data = data_of_page(10, [0, 3, 4, 6, 7])
    neighbours = np.array(numbers(data["neighbours"])).reshape(5, 3)
    assert neighbours.tolist() == [[-1, -1, 1], [2, -1, 3], [-1, 3, 4], [4, -1, -1], [-1, -1, 0]]


def test_missing_photos_are_marked_by_their_number_on_the_page():
    assert numbers(data_of_page(10, [0, 3, 4, 6, 7], missing=[1, 3, 7])["missing"]) == [1, 4]
    assert numbers(data_of_page(4, [0, 1, 2, 3])["missing"]) == []


def noise(number, size=(THUMBNAIL_SIDE, 128)):
    """Make a JPEG that no encoder can make small."""
    file, pixels = io.BytesIO(), np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


def thumbnails_of_page(thumbnails, **settings):
    n = max(thumbnails) + 1
    text, n_shown = make_page(contents_of(n), np.arange(n), thumbnails, settings={**DEFAULTS, **settings})
    [data, lines] = re.findall(r'<script id="(?:data|thumbnails)"[^>]*>(.*?)</script>', text, re.DOTALL)
    shown = dict(zip(numbers(json.loads(data)["thumbnails"]), map(base64.b64decode, lines.split()), strict=True))
    assert len(shown) == n_shown
    return shown, len(text)


def sizes(jpegs):
    return {Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs}


def test_thumbnails_that_all_fit_are_those_of_the_shards():
    thumbnails = {row: noise(row) for row in (2, 0, 1)}
    assert thumbnails_of_page(thumbnails)[0] == thumbnails


@pytest.mark.parametrize("size", [32, 64, 100])
def test_thumbnails_have_the_configured_size_on_the_long_side(size):
    thumbnails = {0: noise(0), 1: noise(1, (100, THUMBNAIL_SIDE)), 2: noise(2, (20, 30))}
    shown, _ = thumbnails_of_page(thumbnails, thumbnail_size=size)
    assert sizes([shown[0]]) == {(size, round(size * 128 / THUMBNAIL_SIDE))}
    assert sizes([shown[1]]) == {(round(size * 100 / THUMBNAIL_SIDE), size)}
    assert shown[2] == thumbnails[2], "a smaller one stays as it is"


def test_if_not_all_thumbnails_fit_the_page_has_smaller_ones():
    thumbnails = {row: noise(row % 7) for row in range(600)}  # each 20 kB and more in base64
    shown, n_bytes = thumbnails_of_page(thumbnails, max_megabytes=10)
    assert len(shown) == 600
    assert sizes(shown.values()) == {(96, 64)}
    assert n_bytes < 10_000_000


def test_the_page_has_as_many_thumbnails_as_fit_the_most_wanted_first():
    thumbnails = {row: noise(row % 7) for row in range(600)}
    shown, n_bytes = thumbnails_of_page(thumbnails, max_megabytes=10, thumbnail_size=THUMBNAIL_SIDE)
    assert [*shown] == [*range(len(shown))]
    assert 9_500_000 < n_bytes < 10_000_000


def test_the_page_has_as_many_photos_as_fit():
    photos = choose_photos([*range(200_000)], {**DEFAULTS, "max_megabytes": 10})
    assert 40_000 < len(photos) < 100_000
    assert photos.tolist() == sorted(photos)
    assert len(choose_photos([*range(200_000)])) == 200_000


def test_the_page_has_the_settings_of_the_configuration():
    assert PageSettings().model_dump() == DEFAULTS
    assert PageSettings(thumbnail_size=THUMBNAIL_SIDE)
    with pytest.raises(ValueError, match="192"):
        PageSettings(thumbnail_size=THUMBNAIL_SIDE + 1)
