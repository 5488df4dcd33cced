"""The interface of an encoder: images or texts in, embeddings out."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..photos.image import Preprocessing

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Embed images.

    An encoder may have three more attributes: `device` (str, where it runs), `batch_size` (int, images per call if the
    configuration says auto) and `n_streams` (int, calls that may run at the same time, in threads).

    Attributes
    ----------
    provenance : dict
        The contents of `encoder.json`.
    preprocessing : Preprocessing
        Preprocessing of its images.
    """

    provenance: dict[str, Any]
    preprocessing: Preprocessing

    def encode_images(self, images: Pixels) -> Embeddings:
        """Embed a batch of images.

        Parameters
        ----------
        images : array of shape (n_images, size, size, 3), uint8, RGB

        Returns
        -------
        array of shape (n_images, n_dims), float32, rows of length 1

        Raises
        ------
        MemoryError
            If the device has too little memory for this many images. The caller then retries with fewer.
        """
        ...


class TextEncoder(Protocol):
    """Embed texts, for comparison with the embeddings of images.

    An encoder that knows only certain words has an attribute `words` (list of str, the most familiar first). Words of
    the same meaning get equal rows.
    """

    def encode_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts.

        Returns
        -------
        array of shape (n_texts, n_dims), float32, rows of length 1

        Raises
        ------
        InputError
            If a text has a word that the encoder does not know.
        """
        ...
