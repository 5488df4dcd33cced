"""A backend that records each image that it gets, as a digest of the pixels. It needs numpy only.

COUNTING_ENCODER_FILE names the file to append to. The rows are bit-identical in every batch.
"""

import hashlib
import os
from typing import Any

import numpy as np

from crossfilter_inference.photos.image import Preprocessing

PREPROCESSING = Preprocessing(size=8, resample=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Describe the encoder; only `model` changes its numbers."""
    return {
        "model": settings["model"],
        "weights_sha256": settings["model"],
        "preprocessing": PREPROCESSING.to_json(),
        "dimension": 192,
        "versions": {},
    }


def load(provenance: dict[str, Any], device: str, n_threads: int) -> "CountingEncoder":
    """Load the encoder."""
    return CountingEncoder(provenance["weights_sha256"])


def pixels_digest(pixels: np.ndarray) -> str:
    """Digest the pixels of one image."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def embed(images: np.ndarray, model: str) -> np.ndarray:
    """Embed images as their own pixels, shifted by the length of the model's name."""
    rows = images.reshape(len(images), -1).astype(np.float32) + np.float32(len(model))
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]


class CountingEncoder:
    """Record images, and embed them with `embed`."""

    preprocessing = PREPROCESSING

    def __init__(self, model: str):
        self._model = model

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Record the images, then embed them: a job that is killed in between has tried to embed them."""
        if path := os.environ.get("COUNTING_ENCODER_FILE"):
            lines = "".join(f"{pixels_digest(image)}\n" for image in images if image.any())  # padding is black
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, lines.encode())
            os.close(handle)
        return embed(images, self._model)
