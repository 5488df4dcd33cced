"""Words of ImageNet's classes."""

import numpy as np
import pytest

from crossfilter_inference.encoders.class_words import ClassWords
from crossfilter_inference.errors import InputError

KOALA, PIZZA = 105, 963
FISH = [*range(7), *range(389, 398)]


@pytest.fixture(scope="module")
def words():
    """The words of a classifier whose rows are random; rows of the same kind have much in common."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(1000, 64))
    rows[FISH] += 2 * random.normal(size=64)
    return ClassWords("SMALL", rows.astype(np.float32)), rows


def ranking(words, text):
    """The classes in order of their similarity to a text."""
    encoder, rows = words
    return np.argsort(-((rows - rows.mean(axis=0)) @ encoder.encode_texts([text])[0]))


def test_a_word_finds_its_classes_first(words):
    assert ranking(words, "koala")[0] == KOALA
    assert ranking(words, "pizza")[0] == PIZZA
    assert {*ranking(words, "fish")[: len(FISH)]} == {*FISH}
    assert {*ranking(words, "crane")[:2]} == {134, 517}  # the bird and the machine


def test_rows_have_length_one_and_the_dimension_of_the_features(words):
    rows = words[0].encode_texts(["fish", "dog", "a photo of a koala"])
    assert rows.shape == (3, 64)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_synonyms_get_equal_rows_and_others_do_not(words):
    rows = words[0].encode_texts(["koala", "koala bear", "kangaroo bear", "pizza", "pizza pie"])
    assert {row.tobytes() for row in rows[:3]} == {rows[0].tobytes()}
    assert rows[3].tobytes() == rows[4].tobytes() != rows[0].tobytes()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A photo of the KOALA", "koala"),
        ("  koalas ", "koala"),
        ("wolves", "wolf"),
        ("strawberries", "strawberry"),
        ("watches", "watch"),
        ("pictures of hot dogs", "hot dog"),
        ("hand tools", "hand tool"),
    ],
)
def test_plurals_articles_and_case_do_not_matter(words, text, same):
    one, other = words[0].encode_texts([text, same])
    assert one.tobytes() == other.tobytes()


def test_a_text_of_several_words_means_all_of_them(words):
    koala, pizza, both = words[0].encode_texts(["koala", "pizza", "a koala with pizza"])
    assert both @ koala == pytest.approx(both @ pizza, abs=1e-6)
    assert both @ koala > 0.6


def test_the_longest_known_words_are_found(words):
    hot_dog, dog = words[0].encode_texts(["hot dog", "dog"])
    assert hot_dog @ dog < 0.9
    order = [*ranking(words, "a horse cart")]
    assert order[0] == 603
    assert order.index(339) > 3  # the horse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("windmill", r"'windmill' is not one of the 3,245 words that SMALL knows; the nearest ones are .*mill"),
        ("a red fish", "'red' is not one of"),
        ("the", "'the' is not one of"),
        ("", "'' is not one of .*; try a plainer word"),
        ("xyzzy", "'xyzzy' is not one of .*; try a plainer word; for any text, embed the photos with SIGLIP2 too"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_ones(words, text, message):
    with pytest.raises(InputError, match=message):
        words[0].encode_texts([text])


def test_all_words_have_classes_and_familiar_ones_come_first(words):
    known = words[0].words
    assert len(known) == len({*known}) == 3245
    assert known.index("fish") < known.index("teleost")
    assert known.index("mountain") < known.index("alp")
    assert np.isfinite(words[0].encode_texts(known)).all()
