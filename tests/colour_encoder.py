"""A user's backend: mean colours of 4 x 4 fields. It needs numpy only, so it is fast.

Tests can make it wait, to kill it in the middle: while a file `encode` or `resolve` exists in the folder that
COLOUR_ENCODER_PAUSE names, that function waits. The file `let-through` holds a number of calls of the encoder that do
not wait. The file `memory` holds a number of MB to allocate while it waits.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossfilter_inference.photos.image import Preprocessing

PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    _pause("resolve")
    return {
        "model": settings["model"],
        "weights_sha256": settings["model"],
        "preprocessing": PREPROCESSING.to_json(),
        "dimension": 48,
        "versions": {},
    }


def load(provenance: dict[str, Any], device: str, n_threads: int) -> "ColourEncoder":
    return ColourEncoder(provenance)


class ColourEncoder:
    preprocessing = PREPROCESSING

    def __init__(self, provenance: dict[str, Any]):
        self.provenance = provenance
        self._n_calls = 0

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        self._n_calls += 1
        _pause("encode", self._n_calls)
        fields = images.reshape(len(images), 4, 8, 4, 8, 3).mean(axis=(2, 4), dtype=np.float32)
        features = fields.reshape(len(images), -1) + len(self.provenance["weights_sha256"])
        return features / np.linalg.norm(features, axis=1, keepdims=True)


def _pause(where: str, n_calls: int = 1) -> None:
    folder = Path(os.environ.get("COLOUR_ENCODER_PAUSE", "/nonexistent"))
    pause, let_through = folder / where, folder / "let-through"
    if pause.exists():
        (folder / f"{where}-calls").write_text(str(n_calls))
        if let_through.exists() and n_calls <= int(let_through.read_text()):
            return
    taken = b""
    while pause.exists():
        if (folder / "memory").exists() and not taken:
            taken = b"x" * int((folder / "memory").read_text()) * 1_000_000
        (pause.parent / f"{where}-reached").touch()
        time.sleep(0.05)
