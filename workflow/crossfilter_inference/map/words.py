"""Words that regions of a map can be named by, as embeddings of an encoder that understands texts.

`words.npz` holds `words`, an array of n_words texts, and `embeddings` of shape (n_words, n_dims), float32.
"""

import io
import logging
from pathlib import Path

import numpy as np

from ..encoders.registry import load_text_encoder
from ..errors import InputError
from ..util.files import write_bytes

logger = logging.getLogger(__name__)

_TEXT = "a photo of {}"


def embed_words(provenance: dict, words: str, output: str) -> int:
    """Embed a list of words, one a line.

    Parameters
    ----------
    provenance : dict
        The contents of `encoder.json`.
    words, output : str
        Paths of the list and of `words.npz`.

    Returns
    -------
    int
        How many words; none, if it turns out that the encoder does not understand texts.
    """
    names = [line.strip() for line in Path(words).read_text("utf-8").splitlines() if line.strip()]
    try:
        embeddings = load_text_encoder(provenance).encode_texts([_TEXT.format(name) for name in names])
    except InputError as error:
        logger.warning("regions are not named by words: %s", error)
        names, embeddings = [], np.empty((0, provenance["dimension"]), np.float32)
    file = io.BytesIO()
    np.savez(file, words=np.array(names, str), embeddings=embeddings)
    write_bytes(output, file.getvalue())
    return len(names)
