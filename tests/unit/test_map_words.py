"""Words of a map."""

import logging

import numpy as np
import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.map import words as module
from crossfilter_inference.map.words import embed_words, find_fits, read_words

PROVENANCE = {"name": "T", "dimension": 3}


class TextEncoder:
    """Embeds each text on the axis of its length."""

    def encode_texts(self, texts):
        self.texts = texts
        return np.eye(3, dtype=np.float32)[[len(text) % 3 for text in texts]]


class KnownWords(TextEncoder):
    words = ("cat", "dogs", "hen", "ox")


@pytest.fixture
def use(monkeypatch):
    def use(encoder):
        monkeypatch.setattr(module, "load_text_encoder", lambda *arguments, **options: encoder)
        return encoder

    return use


@pytest.fixture
def files(tmp_path):
    (tmp_path / "words.txt").write_text("tree\n\nhouse\n")
    return str(tmp_path / "words.txt"), str(tmp_path / "words.npz")


def test_the_words_of_the_list_are_embedded_within_a_sentence(use, files):
    encoder = use(TextEncoder())
    assert embed_words(PROVENANCE, *files) == 2
    assert encoder.texts == ["a photo of tree", "a photo of house"]
    words, embeddings = read_words(files[1])
    assert words == ["tree", "house"]
    assert embeddings.tolist() == np.eye(3)[[15 % 3, 16 % 3]].tolist()


def test_an_encoder_that_knows_certain_words_embeds_those_and_synonyms_are_one_text(use, files):
    encoder = use(KnownWords())
    assert embed_words(PROVENANCE, *files) == 4
    assert [*encoder.texts] == ["cat", "dogs", "hen", "ox"]
    words, embeddings = read_words(files[1])
    assert words == ["cat\nhen", "dogs", "ox"]
    assert embeddings.tolist() == np.eye(3)[[0, 1, 2]].tolist()


def test_an_encoder_without_words_leaves_an_empty_file(monkeypatch, files, caplog):
    def fail(*arguments, **options):
        raise InputError("T does not understand text")

    monkeypatch.setattr(module, "load_text_encoder", fail)
    caplog.set_level(logging.WARNING)
    assert embed_words(PROVENANCE, *files) == 0
    assert "T does not understand text" in caplog.text
    assert read_words(files[1])[0] == []


@pytest.fixture(scope="module")
def photos():
    """Photos that have nothing to do with the words, and some that fit the first two."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(10_000, 64)).clip(-3, 3).astype(np.float32)
    rows[[5, 5000, 9999], 0] = [12, 14, 13]
    rows[100:800, 1] += np.linspace(20, 27, 700)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def fits(photos):
    return find_fits(photos, ["fish", "bird", "house"], np.eye(3, 64, dtype=np.float32))


def test_photos_that_fit_are_found_the_best_one_first(fits):
    assert fits[0].words == "fish"
    assert fits[0].photos.tolist() == [5000, 9999, 5]
    assert fits[0].stand_out


def test_of_many_photos_that_fit_the_best_are_found(fits, photos):
    assert fits[1].photos.tolist() == np.argsort(-photos[:, 1], kind="stable")[:500].tolist()
    assert fits[1].stand_out


def test_a_word_that_no_photo_fits_has_the_most_similar_ones(fits, photos):
    assert fits[2].photos.tolist() == np.argsort(-photos[:, 2], kind="stable")[:5].tolist()
    assert not fits[2].stand_out


def test_few_photos_and_no_words_are_no_trouble():
    one = np.eye(1, 8, dtype=np.float32)
    assert find_fits(one[:0], ["fish"], one) == []
    assert find_fits(one, [], one[:0]) == []
    [fit] = find_fits(one, ["fish"], one)
    assert fit.photos.tolist() == [0]
    assert not fit.stand_out
