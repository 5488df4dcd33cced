"""The data of the page, without a browser."""

import base64
import json
import re

import numpy as np

from crossfilter_inference.map.contents import MapContents
from crossfilter_inference.view.page import make_page


def data_of_page(n, shown, missing=()):
    contents = MapContents(
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
    text, _ = make_page(contents, np.array(shown), {})
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
