"""An encoder that needs numpy alone, and that writes down which images it is given: a digest of the pixels of each.

The file to write to is named by COUNTING_ENCODER_FILE. Its rows are the same bit by bit in every batch.
"""

import hashlib
import os

import numpy as np

from crossfilter_inference.photos.image import Preprocessing

PREPROCESSING = Preprocessing(size=8, resample=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def resolve(settings: dict) -> dict:
    """Say what the encoder is: `model` alone changes its numbers."""
    return {
        "model": settings["model"],
        "weights_sha256": settings["model"],
        "preprocessing": PREPROCESSING.to_json(),
        "dimension": 192,
        "versions": {},
    }


def load(provenance: dict, device: str, n_threads: int) -> "CountingEncoder":
    """Make the encoder."""
    return CountingEncoder(provenance["weights_sha256"])


def pixels_digest(pixels: np.ndarray) -> str:
    """Digest the pixels of one image."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


class CountingEncoder:
    """The pixels themselves, moved by the length of the model's name."""

    preprocessing = PREPROCESSING

    def __init__(self, model: str):
        self._offset = np.float32(len(model))

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Embed images, and write down which; before it is done, as a job that is killed would have begun it."""
        if path := os.environ.get("COUNTING_ENCODER_FILE"):
            lines = "".join(f"{pixels_digest(image)}\n" for image in images if image.any())  # padding is black
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, lines.encode())
            os.close(handle)
        rows = images.reshape(len(images), -1).astype(np.float32) + self._offset
        return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
