"""What an encoder is to those who use one: images or texts in, embeddings out."""

from typing import Protocol

import numpy as np

from ..photos.image import Preprocessing


class Encoder(Protocol):
    """Images in, embeddings out.

    `provenance` is what `resolve_encoder` wrote; `preprocessing` says how the images must come. Three more
    attributes may be there: `device` (what it runs on), `batch_size` (images per call where the configuration leaves
    the choice to the encoder) and `n_streams` (calls that may run at once, in threads).
    """

    provenance: dict
    preprocessing: Preprocessing

    def encode_images(self, images: np.ndarray) -> np.ndarray:
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
            If the memory of the device is too small for so many images; it is then called with fewer.
        """
        ...


class TextEncoder(Protocol):
    """Texts in, embeddings out, to be compared with those of images."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Embed texts.

        Returns
        -------
        array of shape (n_texts, n_dims), float32, rows of length 1
        """
        ...
