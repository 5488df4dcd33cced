"""Words for an encoder whose network was trained to tell the 1,000 classes of ImageNet apart.

A word means one class (koala) or several (fish). `imagenet_words.tsv` lists all words with their classes, the most
familiar first: the lemmas of WordNet 3.0 for the classes and for what is above them. The embedding of a word is the
direction in which the features of its classes are farthest from those of all others. The rows of the classifier stand
for the features of the classes, to which they are nearly parallel at the end of training.

References
----------
C. Fellbaum (ed.), "WordNet: An Electronic Lexical Database", MIT Press 1998.
V. Papyan, X. Y. Han and D. L. Donoho, "Prevalence of neural collapse during the terminal phase of deep learning
training", PNAS 2020.
"""

import difflib
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..util.text import once_with
from .protocol import Embeddings

_FILE = Path(__file__).with_name("imagenet_words.tsv")
_RIDGE = 10.0  # chosen on the demo photos; 1 to 30 differ little
_FILLERS = frozenset({"a", "an", "and", "at", "by", "in", "of", "on", "or", "the", "to", "with"}) | {
    *("image", "images", "photo", "photos", "picture", "pictures"),
}
_PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))

Classes = tuple[int, ...]


class ClassWords:
    """Embed words, by the rows of a classifier; see `TextEncoder`.

    Parameters
    ----------
    name : str
        Embedding type.
    classifier : array of shape (1000, n_dims), float32
        The weights of ImageNet's classes, in the usual order.

    Attributes
    ----------
    words : list of str
        All words, the most familiar first.
    """

    def __init__(self, name: str, classifier: NDArray[np.float32]):
        self._name, self._classes = name, _read_classes(_FILE)
        self.words = list(self._classes)
        self._directions_of_classes = _ridge_regression(classifier)

    def encode_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts. A text of several known words means all of them; words of the same classes get equal rows.

        Raises
        ------
        InputError
            If a text has a word that is not known.
        """
        meanings = [self._meanings(text) for text in texts]
        number = {meaning: i for i, meaning in enumerate(dict.fromkeys(chain(*meanings)))}
        directions = self._directions(list(number))
        rows = np.array([directions[[number[meaning] for meaning in found]].mean(axis=0) for found in meanings])
        unit_rows: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit_rows

    def _directions(self, meanings: list[Classes]) -> NDArray[np.float64]:
        """Return a row of length 1 for each meaning: the direction that tells its classes from all others."""
        member = np.zeros((len(meanings), len(self._directions_of_classes)))
        for row, classes in enumerate(meanings):
            member[row, list(classes)] = 1
        directions = member @ self._directions_of_classes
        unit: NDArray[np.float64] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        return unit

    def _meanings(self, text: str) -> list[Classes]:
        """Find the known words of a text, the longest first."""
        tokens = text.lower().split()
        found, start = [], 0
        while start < len(tokens):
            for end in range(len(tokens), start, -1):
                if classes := self._known(" ".join(tokens[start:end])):
                    found.append(classes)
                    start = end
                    break
            else:
                if tokens[start] not in _FILLERS:
                    raise self._unknown(tokens[start])
                start += 1
        if not found:
            raise self._unknown(text)
        return found

    def _known(self, word: str) -> Classes | None:
        """Return the classes of a word, in the singular or the plural; None if it is not known."""
        singulars = [word.removesuffix(end) + ending for end, ending in _PLURALS if word.endswith(end)]
        return next((self._classes[name] for name in (word, *singulars) if name in self._classes), None)

    def _unknown(self, word: str) -> InputError:
        near = difflib.get_close_matches(word.lower(), self.words, n=3)
        instead = f"the nearest ones are {', '.join(near)}" if near else "try a plainer word"
        return InputError(
            f"{word!r} is not one of the {len(self.words):,} words that {self._name} knows; {instead}; for any text, "
            f"embed the photos with SIGLIP2 too: {once_with('embedding_type=SIGLIP2')}, then search with "
            "--embedding_type SIGLIP2"
        )


def _ridge_regression(classifier: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a row for each class: ridge regression of membership on the centred rows of the classifier."""
    rows = (classifier - classifier.mean(axis=0)).astype(np.float64)
    gram = rows.T @ rows
    gram[np.diag_indices_from(gram)] += _RIDGE
    return np.linalg.solve(gram, rows.T).T


def _read_classes(path: Path) -> dict[str, Classes]:
    """Read the classes of each word from lines such as `fish<TAB>0-6,389-397`."""
    classes = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        word, ranges = line.split("\t")
        pairs = [part.partition("-")[::2] for part in ranges.split(",")]
        classes[word] = tuple(n for first, last in pairs for n in range(int(first), int(last or first) + 1))
    return classes
