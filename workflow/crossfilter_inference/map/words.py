"""Words that can name the regions of a map, embedded by an encoder that understands text.

`words.txt` lists them, one per line. `words.npz` holds `words`, an array of n_words texts, and their `embeddings`, of
shape (n_words, n_dims), float32:

    numpy.load("words.npz")["words"]
"""

import io
import logging
from collections.abc import Iterable
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


def embed_words(provenance: dict[str, Any], words: str, output: str, backends: Iterable[str] = ()) -> int:
    """Embed a list of words.

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
        embeddings = load_text_encoder(provenance, backends=backends).encode_texts(
            [_PROMPT.format(name) for name in names]
        )
    except InputError as error:
        logger.warning("cannot name regions by words: %s", error)
        names, embeddings = [], np.empty((0, provenance["dimension"]), np.float32)
    file = io.BytesIO()
    np.savez(file, words=np.array(names, str), embeddings=embeddings)
    write_bytes(output, file.getvalue())
    return len(names)


def read_words(path: str) -> tuple[list[str], NDArray[np.float32]]:
    """Read `words.npz`.

    Returns
    -------
    words : list of str
        Empty if the encoder does not understand text.
    embeddings : array of shape (n_words, n_dims), float32, rows of length 1

    Raises
    ------
    InputError
        If the file is damaged.
    """
    words, embeddings = read_arrays(path, words=("U", 1), embeddings=("f", 2))
    if len(words) != len(embeddings):
        raise damaged(path)
    return words.tolist(), embeddings.astype(np.float32)
