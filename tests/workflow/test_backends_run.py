"""Runs with checkpoints of CLIP and of another vision model."""

import json

import numpy as np
import pytest
import torch
from conftest import page_data
from test_siglip import square
from tiny_checkpoints import save_tiny_checkpoint

from crossfilter_inference.db.connect import reading
from crossfilter_inference.db.embeddings import read_embeddings
from crossfilter_inference.encoders.hub import import_transformers


def check_rows(collection, checkpoint, features):
    """The rows equal those of transformers; nothing is left to do."""
    transformers = import_transformers()
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    with reading(collection.database) as connection:
        uuids, embeddings = read_embeddings(connection, collection.type)
    with torch.no_grad():
        expected = features(model, processor(images=[*map(square, uuids)], return_tensors="pt")["pixel_values"])
    expected = torch.nn.functional.normalize(expected).numpy()
    assert (1 - (embeddings.astype(float) * expected).sum(axis=1)).max() < 1e-6
    assert collection.dry_run() == {}
    return uuids, embeddings


@pytest.mark.slow
def test_a_run_with_clip_can_be_searched_by_text(make_collection, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    save_tiny_checkpoint(checkpoint, "clip")
    encoders = {"CLIP": {"backend": "clip", "model": str(checkpoint)}}
    collection = make_collection(12, embedding_type="CLIP", encoders=encoders, reproject_umap_embeddings=True)
    assert collection.run()["embed_words"] == 1
    uuids, embeddings = check_rows(
        collection, checkpoint, lambda model, pixels: model.get_image_features(pixel_values=pixels).pooler_output
    )
    assert page_data(collection.state / "map.html")["regions"]

    done = collection.script("search.py", "--text", "a windmill", "--n", "12", "--json")
    assert done.returncode == 0, done.stderr
    found = [photo["uuid"] for photo in json.loads(done.stdout)]
    transformers = import_transformers()
    tokens = transformers.AutoTokenizer.from_pretrained(checkpoint)("a windmill", return_tensors="pt")
    with torch.no_grad():
        text = transformers.AutoModel.from_pretrained(checkpoint).eval().get_text_features(**tokens).pooler_output[0]
    similarity = dict(zip(map(str, uuids), embeddings @ text.numpy(), strict=True))
    assert np.all(np.diff([similarity[uuid] for uuid in found]) < 1e-5)


@pytest.mark.slow
def test_another_pooling_embeds_every_photo_again(make_collection, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    save_tiny_checkpoint(checkpoint, "dinov2")
    encoder = {"backend": "dino", "model": str(checkpoint)}
    collection = make_collection(8, embedding_type="DINO", encoders={"DINO": encoder})
    collection.run()
    check_rows(collection, checkpoint, lambda model, pixels: model(pixel_values=pixels).pooler_output)
    collection.configure(encoders={"DINO": {**encoder, "pooling": "mean"}})
    assert collection.run()["embed_shard"] == 1
    check_rows(
        collection, checkpoint, lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, 1:].mean(1)
    )
    done = collection.script("search.py", "--text", "a windmill")
    assert done.returncode == 1
    assert "DINO does not understand text; choose an encoder of the backend clip or " in done.stderr.splitlines()[-1]
