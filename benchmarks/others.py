"""Other ways to embed photos with the same checkpoint: the original tool's, and two common libraries."""

import sqlite3
import threading
from pathlib import Path
from queue import Queue

import numpy as np
import torch
import transformers
from PIL import Image

from crossfilter_inference.db.embeddings import pack_embedding


class Reference:
    """The original tool's loop, with the model loaded once: decode, preprocess and embed ten photos at a time.

    Rows go through a queue to a thread that commits each of them.
    """

    def __init__(self, checkpoint: str, device: str = "cpu"):
        self.model = transformers.AutoModel.from_pretrained(checkpoint).eval().to(device)
        self.processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")

    def preprocess(self, paths: list[str]) -> torch.Tensor:
        """Decode, crop and resize photos one after the other."""
        squares = []
        for path in paths:
            image = Image.open(path).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            squares.append(image.crop((left, top, left + side, top + side)))
        return self.processor(images=squares, return_tensors="pt")["pixel_values"]

    def embed(self, paths: list[str], database: Path) -> np.ndarray:
        """Embed photos into a database; return an array of shape (n_images, n_dims), float32."""
        queue: Queue[tuple[str, np.ndarray] | None] = Queue()
        writer = threading.Thread(target=_write_rows, args=(queue, database))
        writer.start()
        embeddings = []
        for start in range(0, len(paths), 10):
            batch = paths[start : start + 10]
            pixels = self.preprocess(batch).to(self.model.device)
            with torch.no_grad():
                features = self.model.get_image_features(pixel_values=pixels).pooler_output
                rows = torch.nn.functional.normalize(features, dim=1).cpu().numpy()
            for path, row in zip(batch, rows, strict=True):
                queue.put((Path(path).stem, row))
            embeddings.append(rows)
        queue.put(None)
        writer.join()
        return np.concatenate(embeddings)


def _write_rows(queue: "Queue[tuple[str, np.ndarray] | None]", database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE IF NOT EXISTS EMBEDDINGS (UUID TEXT PRIMARY KEY, EMBEDDING BLOB NOT NULL)")
    while (item := queue.get()) is not None:
        uuid, embedding = item
        connection.execute("INSERT OR REPLACE INTO EMBEDDINGS VALUES (?, ?)", (uuid, pack_embedding(embedding)))
        connection.commit()
    connection.close()


class TransformersPipeline:
    """The pipeline `image-feature-extraction` of transformers, with batches of ten and `n_loaders` loader processes."""

    def __init__(self, checkpoint: str, n_loaders: int):
        self._pipeline = transformers.pipeline(
            "image-feature-extraction",
            model=transformers.SiglipVisionModel.from_pretrained(checkpoint),
            image_processor=transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil"),
        )
        self._n_loaders = n_loaders

    def embed(self, paths: list[str]) -> None:
        """Embed photos, and discard the embeddings."""
        for _ in self._pipeline(paths, pool=True, batch_size=10, num_workers=self._n_loaders):
            pass


class SentenceTransformers:
    """The `encode` method of sentence-transformers, with its default batch size."""

    def __init__(self, checkpoint: str):
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(checkpoint)

    def embed(self, paths: list[str]) -> None:
        """Embed photos, and discard the embeddings."""
        self._model.encode([Image.open(path) for path in paths])
