"""A SigLIP checkpoint, built from a small configuration, saved, and loaded the way a user's is."""

import os
import shutil

import numpy as np
import pytest
import torch
from conftest import DEMO
from PIL import Image

from crossfilter_inference.database import read_embeddings, reading

os.environ["HF_HUB_OFFLINE"] = "1"


def save_checkpoint(folder, model_type):
    """Save a tiny checkpoint with random weights; returns transformers' own processor and model."""
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    if model_type == "siglip":
        vision = {**sizes, "image_size": 64, "patch_size": 16}
        config = transformers.SiglipConfig(text_config={**sizes, "vocab_size": 64}, vision_config=vision)
        model = transformers.SiglipModel(config)
        processor = transformers.SiglipImageProcessorPil(size={"height": 64, "width": 64})
    else:
        vision = {**sizes, "num_patches": 16, "patch_size": 16}
        config = transformers.Siglip2Config(text_config={**sizes, "vocab_size": 64}, vision_config=vision)
        model = transformers.Siglip2Model(config)
        processor = transformers.Siglip2ImageProcessorPil(max_num_patches=16, patch_size=16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor, model.eval()


@pytest.mark.parametrize("model_type", ["siglip", "siglip2"])
def test_rows_equal_what_transformers_gives(make_collection, tmp_path, model_type):
    processor, model = save_checkpoint(tmp_path / "checkpoint", model_type)
    collection = make_collection(
        11,
        embedding_type="SIGLIP2",
        encoders={"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "checkpoint")}},
        reproject_umap_embeddings=model_type == "siglip",
    )
    collection.run()
    with reading(collection.database) as connection:
        uuids, embeddings = read_embeddings(connection, "SIGLIP2")
    assert embeddings.shape == (11, 32)
    for uuid, embedding in zip(uuids, embeddings, strict=True):
        with Image.open(DEMO / f"{uuid}.jpg") as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        with torch.no_grad():
            features = model.get_image_features(**processor(images=square, return_tensors="pt")).pooler_output[0]
        expected = torch.nn.functional.normalize(features, dim=0).numpy()
        assert 1 - np.dot(embedding.astype(float), expected.astype(float)) < 1e-6
    if model_type == "siglip":
        assert collection.sql("SELECT count(*) FROM {T}_UMAP_HAVERSINE") == [(11,)]
        assert collection.sql("SELECT count(*) FROM {T}_UMAP_MODEL") == [(1,)]
    assert collection.dry_run() == {}


def test_other_weights_in_the_same_folder_are_noticed(make_collection, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(checkpoint, "siglip")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(checkpoint)}}
    collection = make_collection(3, embedding_type="SIGLIP2", encoders=encoders)
    collection.run()
    before = collection.embeddings()
    weights = checkpoint / "model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: tensor * 1.1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert collection.run() == {"resolve_encoder": 1, "embed_shard": 1, "store_embeddings": 1}
    assert all(row != before[uuid] for uuid, row in collection.embeddings().items())


def test_a_checkpoint_in_the_cache_needs_no_network(make_collection, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", "siglip")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny-siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tmp_path / "checkpoint", repository / "snapshots" / commit)
    encoders = {"SIGLIP2": {"backend": "siglip", "model": "someone/tiny-siglip"}}
    collection = make_collection(3, embedding_type="SIGLIP2", encoders=encoders)
    collection.run(env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")})
    assert len(collection.embeddings()) == 3
    assert collection.sql("SELECT VALUE FROM {T}_PROVENANCE WHERE KEY = 'encoder_commit'") == [(commit,)]


def test_without_network_and_checkpoint_one_line_shows_the_ways_out(make_collection, tmp_path):
    collection = make_collection(3, embedding_type="SIGLIP2")
    done = collection.snakemake(env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")})
    assert done.returncode == 1
    [line] = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert line in done.stdout.strip().splitlines()[-6:]  # what counts comes at the end
    assert line.startswith("error: encoders.SIGLIP2: model:")
    assert "'google/siglip2-base-patch16-224' is not in the local cache and the hub cannot be reached" in line
    for way_out in ("the same command once where there is a network", "set model to a folder", "EFFICIENTNET_LITE0"):
        assert way_out in line
    assert "Traceback" not in done.stdout
    assert not collection.database.exists()


def test_another_kind_of_model_is_refused(make_collection, tmp_path):
    import transformers

    config = transformers.ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "vit")}}
    collection = make_collection(1, embedding_type="SIGLIP2", encoders=encoders)
    done = collection.snakemake()
    assert done.returncode == 1
    assert "is of type 'vit'; the backend siglip reads siglip and siglip2" in done.stdout
