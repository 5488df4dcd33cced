"""Words for a map: they name its regions, and find photos on the page, without a network.

`words.txt` lists them, one per line, for encoders that understand any text; others know their own words. `words.npz`
holds `words`, an array of n_meanings texts, and their `embeddings`, of shape (n_meanings, n_dims), float32. A text is a
word, or several words of the same meaning, one per line. Only an encoder's own words have synonyms; these texts and
their lines are in order of familiarity:

    numpy.load("words.npz")["words"]
"""

import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.registry import load_text_encoder
from ..errors import InputError
from ..util.files import damaged, write_bytes
from .files import read_arrays

logger = logging.getLogger(__name__)

_PROMPT = "a photo of {}"
# A photo fits a word if their similarity is higher than that of most photos by so many standard deviations.
_MIN_DEVIATIONS = 4.0
_DEVIATION = 1.4826  # standard deviation of a normal distribution, in median absolute deviations
_N_SAMPLE = 10_000  # photos from which median and deviation are estimated
_MOST_FITTING = 500  # photos of a word
_FEWEST = 5  # photos of a word that none fits
_BLOCK = 4096  # photos compared at once


def embed_words(provenance: dict[str, Any], words: str, output: str, backends: Iterable[str] = ()) -> int:
    """Embed the words that an encoder knows, or else those of a list.

    Parameters
    ----------
    provenance : dict
        The contents of `encoder.json`.
    words, output : str
        Paths of the list and of `words.npz`.
    backends : iterable of str
        The Python files that the configuration names as backends; see `load_encoder`.

    Returns
    -------
    int
        Number of words; 0 if the encoder does not understand text.
    """
    names = [line.strip() for line in Path(words).read_text("utf-8").splitlines() if line.strip()]
    try:
        encoder = load_text_encoder(provenance, backends=backends)
        names = list(getattr(encoder, "words", names))
        rows = encoder.encode_texts(names if hasattr(encoder, "words") else [_PROMPT.format(name) for name in names])
    except InputError as error:
        logger.warning("cannot name regions by words: %s", error)
        names, rows = [], np.empty((0, provenance["dimension"]), np.float32)
    number_of = {row.tobytes(): number for number, row in reversed([*enumerate(rows)])}
    meanings = defaultdict(list)
    for name, row in zip(names, rows, strict=True):
        meanings[number_of[row.tobytes()]].append(name)
    texts = np.array(["\n".join(synonyms) for synonyms in meanings.values()], str)
    file = io.BytesIO()
    np.savez(file, words=texts, embeddings=rows[[*meanings]])
    write_bytes(output, file.getvalue())
    return len(names)


def read_words(path: str) -> tuple[list[str], NDArray[np.float32]]:
    """Read `words.npz`.

    Returns
    -------
    words : list of str
        Words of the same meaning are one text, one per line. Empty if the encoder does not understand text.
    embeddings : array of shape (n_meanings, n_dims), float32, rows of length 1

    Raises
    ------
    InputError
        If the file is damaged.
    """
    words, embeddings = read_arrays(path, words=("U", 1), embeddings=("f", 2))
    if len(words) != len(embeddings):
        raise damaged(path)
    return words.tolist(), embeddings.astype(np.float32)


@dataclass(frozen=True)
class Fits:
    """Photos that fit a meaning best.

    Attributes
    ----------
    words : str
        The words of this meaning, one per line.
    photos : array of int32
        Rows of the photos, the best fit first.
    stand_out : bool
        Whether they are more similar to the word than most photos are; if not, they are the few most similar ones.
    """

    words: str
    photos: NDArray[np.int32]
    stand_out: bool


def find_fits(
    embeddings: NDArray[np.float32], words: Sequence[str], word_embeddings: NDArray[np.float32]
) -> list[Fits]:
    """Find the photos that fit each meaning best.

    Parameters
    ----------
    embeddings : array of shape (n_images, n_dims), float32, rows of length 1
    words : sequence of str
    word_embeddings : array of shape (n_meanings, n_dims), float32, rows of length 1
        By the same encoder as `embeddings`.
    """
    if not len(embeddings) or not words:
        return []
    sample = embeddings[:: -(len(embeddings) // -_N_SAMPLE)] @ word_embeddings.T
    middle = np.median(sample, axis=0)
    least = middle + _MIN_DEVIATIONS * _DEVIATION * np.median(abs(sample - middle), axis=0)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, len(embeddings), _BLOCK):
        similarity = embeddings[start : start + _BLOCK] @ word_embeddings.T
        chosen = similarity > least
        few = min(_FEWEST, len(similarity))
        np.put_along_axis(chosen, np.argpartition(-similarity, few - 1, axis=0)[:few], values=True, axis=0)
        rows, meanings = np.nonzero(chosen)
        found.append((meanings, rows + start, similarity[rows, meanings]))
    meanings, rows, values = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((rows, -values, meanings))
    ends = np.searchsorted(meanings[order], np.arange(len(words) + 1))
    fits = []
    for number, (text, first, last) in enumerate(zip(words, ends[:-1], ends[1:], strict=True)):
        own = order[first:last]
        n_fitting = int((values[own] > least[number]).sum())
        shown = own[: min(n_fitting, _MOST_FITTING) or _FEWEST]
        fits.append(Fits(text, rows[shown].astype(np.int32), n_fitting > 0))
    return fits
