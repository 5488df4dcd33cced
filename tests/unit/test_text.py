"""Numbers formatted for people."""

import pytest

from crossfilter_inference.util.text import counted, duration, printable


@pytest.mark.parametrize(("n", "text"), [(0, "0 photos"), (1, "1 photo"), (2, "2 photos"), (12345, "12,345 photos")])
def test_a_count_of_one_is_singular(n, text):
    assert counted(n, "photos") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "10 s"), (44, "40 s"), (99, "100 s"), (100, "2 min"), (3600, "60 min"), (7300, "2 h")]
)
def test_a_duration_is_rounded(seconds, text):
    assert duration(seconds) == text


def test_any_path_can_be_printed():
    assert printable("a\nb\udce9é") == "a\\nb\\xe9é"
