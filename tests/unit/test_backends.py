"""CLIP, DINO and other vision models: rows as transformers computes them, wrong checkpoints refused in one line."""

import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import needs
from huggingface_hub.utils import filter_repo_objects
from PIL import Image
from safetensors.torch import load_file, save_file
from test_checkpoint import change_json, change_weights, in_cache
from tiny_checkpoints import NETWORKS, SIZES, SQUARE, TOWERS, VISION, save_tiny_checkpoint

from crossfilter_inference.config import EncoderSettings
from crossfilter_inference.encoders import hub, identity, image_processor
from crossfilter_inference.encoders.pooling import PooledNetwork
from crossfilter_inference.encoders.registry import load_encoder, load_text_encoder, resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.image import Preprocessing, load_image

os.environ["HF_HUB_OFFLINE"] = "1"
WORDS = ["a red panda on a branch", "A Windmill by the SEA", "x", "", "castle " * 100]


def save_old_tokenizer(folder):
    """Replace the tokenizer of CLIP in a folder by the files in which transformers 4 saved it."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    merges = (" ".join(pair) for pair in tokenizer["model"]["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a tiny checkpoint in the folder of each model type."""
    folder = tmp_path_factory.mktemp("saved")
    for model_type in [*TOWERS, *NETWORKS]:
        save_tiny_checkpoint(folder / model_type, model_type)
    return folder


@pytest.fixture
def folder_of(saved, tmp_path):
    """Copy a checkpoint, to change at will."""
    return lambda model_type: Path(shutil.copytree(saved / model_type, tmp_path / model_type))


def settings_of(model_type, folder, **settings):
    backend = "clip" if model_type in TOWERS else "dino" if model_type.startswith("dino") else "transformers"
    settings = {"backend": backend, "model": str(folder), "revision": "main", **settings}
    return {"pooling": "pooler", **settings} if settings["backend"] == "transformers" else settings


def resolve(model_type, folder, **settings):
    return resolve_encoder("A", settings_of(model_type, folder, **settings))


def refused(model_type, folder, **settings):
    """Resolve a checkpoint, which must be refused in one line; return the line."""
    with pytest.raises(InputError) as raised:
        resolve(model_type, folder, **settings)
    line = str(raised.value)
    assert "\n" not in line
    return line


def photos():
    """Three square photos with structure at several scales, larger than the networks take, as PNG files."""
    random = np.random.default_rng(0)
    for side in (96, 150, 301):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        noise = random.integers(-20, 21, (side, side, 3))
        yield Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def rows_of(encoder):
    """Embed the photos with an encoder, from their files."""
    images = []
    for photo in photos():
        file = io.BytesIO()
        photo.save(file, "PNG")
        images.append(load_image(file.getvalue(), encoder.preprocessing).pixels)
    return encoder.encode_images(np.stack(images))


def by_transformers(folder, features):
    """Embed the photos with transformers alone: its model, and its own reading of the image processor."""
    transformers = hub.import_transformers()
    if "DINOv3" in (text := (folder / "preprocessor_config.json").read_text()):
        processor = transformers.ViTImageProcessorPil(**json.loads(text))
    else:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = features(model, processor(images=[*photos()], return_tensors="pt")["pixel_values"])
    return torch.nn.functional.normalize(rows).numpy()


def pooler(model, pixels):
    return model(pixel_values=pixels).pooler_output.flatten(1)


def projection(model, pixels):
    return model.get_image_features(pixel_values=pixels).pooler_output


def assert_same(rows, expected):
    assert rows.shape == expected.shape
    assert rows.dtype == np.float32
    assert (1 - (rows.astype(float) * expected).sum(axis=1)).max() < 1e-6
    similarity = rows @ rows.T
    assert similarity[~np.eye(len(rows), dtype=bool)].max() < 1 - 1e-5, "photos have different embeddings"


# Rows


@pytest.mark.parametrize("model_type", [*TOWERS, *NETWORKS])
@pytest.mark.parametrize("where", ["in a folder", "in the cache of the hub"])
def test_rows_of_images_equal_those_of_transformers(saved, tmp_path, monkeypatch, model_type, where):
    folder = saved / model_type
    expected = by_transformers(folder, projection if model_type in TOWERS else pooler)
    name = folder
    if where != "in a folder":
        in_cache(folder, tmp_path / "hub", monkeypatch)
        name = "someone/tiny"
    provenance = resolve(model_type, name)
    assert provenance["dimension"] == expected.shape[1]
    assert (provenance["commit"] is None) == (name == folder)
    assert_same(rows_of(load_encoder(provenance)), expected)


@pytest.mark.parametrize("model_type", TOWERS)
def test_rows_of_texts_equal_those_of_transformers(saved, model_type):
    transformers = hub.import_transformers()
    folder = saved / model_type
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(WORDS, return_tensors="pt", padding=True, truncation=True, max_length=77)
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(folder).eval()
        features = model.get_text_features(**inputs).pooler_output
    expected = torch.nn.functional.normalize(features).numpy()
    encoder = load_text_encoder(resolve(model_type, folder))
    assert_same(encoder.encode_texts(WORDS), expected)
    alone = np.concatenate([encoder.encode_texts([text]) for text in WORDS])
    assert_same(alone, expected)
    ignores_case = model_type == "clip"
    assert np.array_equal(*encoder.encode_texts(["x", "X"])) == ignores_case


def test_a_checkpoint_of_clip_as_transformers_4_saved_it_is_read(folder_of):
    folder = folder_of("clip")
    images = by_transformers(folder, projection)
    texts = load_text_encoder(resolve("clip", folder)).encode_texts(WORDS)
    positions = {"vision_model": torch.arange(17)[None], "text_model": torch.arange(77)[None]}
    change_weights(folder, **{f"{name}.embeddings.position_ids": ids for name, ids in positions.items()})
    old = {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"}
    change_json(folder / "preprocessor_config.json", size=64, crop_size=64, **old)
    save_old_tokenizer(folder)
    provenance = resolve("clip", folder)
    assert_same(rows_of(load_encoder(provenance)), images)
    assert_same(load_text_encoder(provenance).encode_texts(WORDS), texts)


def test_a_checkpoint_of_vit_whose_image_processor_has_no_name_is_read(folder_of):
    """Those of Google have none."""
    folder = folder_of("vit")
    half = [0.5, 0.5, 0.5]
    values = {"do_normalize": True, "do_resize": True, "image_mean": half, "image_std": half, "size": 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    assert_same(rows_of(load_encoder(resolve("vit", folder))), by_transformers(folder, pooler))


@pytest.mark.parametrize("model_type", [*TOWERS, *NETWORKS])
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=[needs("openvino"), pytest.mark.slow])])
def test_a_row_is_the_same_at_every_position_with_any_neighbours_and_threads(saved, model_type, runtime):
    provenance = resolve(model_type, saved / model_type, runtime=runtime, dtype="float32")
    size = provenance["preprocessing"]["size"]
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    before = torch.get_num_threads()
    try:
        one, two = (load_encoder(provenance, "cpu", n_threads) for n_threads in (1, 2))
        rows = two.encode_images(pixels)
        assert np.array_equal(rows, two.encode_images(pixels[::-1].copy())[::-1]), "position"
        alone = np.zeros_like(pixels)
        alone[2] = pixels[2]
        assert np.array_equal(rows[2], two.encode_images(alone)[2]), "neighbours"
        assert np.array_equal(rows, one.encode_images(pixels)), "threads"
        plain = load_encoder({**provenance, "runtime": "torch"}, "cpu", 1).encode_images(pixels)
        assert (1 - (rows.astype(float) * plain).sum(axis=1)).max() < 1e-6, "runtime"
    finally:
        torch.set_num_threads(before)


def test_dtype_is_honoured(saved):
    encoder = load_encoder(resolve("dinov2", saved / "dinov2", dtype="bfloat16"))
    assert {weight.dtype for weight in encoder._network.parameters()} == {torch.bfloat16}
    similarity = (rows_of(encoder) * by_transformers(saved / "dinov2", pooler)).sum(axis=1)
    assert similarity.min() > 0.99


# Pooling


def mean_of_patches(n_patches):
    return lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, -n_patches:].mean(1)


@pytest.mark.parametrize(
    ("model_type", "pooling", "features"),
    [
        ("vit", "cls", lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, 0]),
        ("vit", "mean", mean_of_patches(16)),
        ("dinov2_with_registers", "mean", mean_of_patches(4)),
        ("dinov3_vit", "mean", mean_of_patches(16)),
        ("swin", "mean", lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean(1)),
        ("resnet", "mean", lambda model, pixels: model(pixel_values=pixels).last_hidden_state.mean((2, 3))),
    ],
)
def test_a_pooling_is_honoured(saved, model_type, pooling, features):
    provenance = resolve(model_type, saved / model_type, backend="transformers", pooling=pooling)
    assert provenance["pooling"] == pooling
    assert_same(rows_of(load_encoder(provenance)), by_transformers(saved / model_type, features))


def test_the_mean_of_patches_leaves_out_the_class_token_however_the_patch_size_is_written(folder_of):
    folder = folder_of("vit")
    before = rows_of(load_encoder(resolve("vit", folder, pooling="mean")))
    change_json(folder / "config.json", patch_size=[16, 16])
    assert np.array_equal(rows_of(load_encoder(resolve("vit", folder, pooling="mean"))), before)


def test_dino_has_the_pooling_of_transformers_unless_another_is_set(saved):
    assert resolve("dinov2", saved / "dinov2")["pooling"] == "pooler"
    digests = {
        identity.provenance_digest(resolve("dinov2", saved / "dinov2", **settings))
        for settings in ({}, {"pooling": "mean"}, {"pooling": "cls"})
    }
    assert len(digests) == 3


@pytest.mark.parametrize("model_type", ["swin", "resnet", "dinov3_convnext"])
def test_a_pooling_that_the_model_lacks_is_refused(saved, model_type):
    line = refused(model_type, saved / model_type, backend="transformers", pooling="cls")
    assert line == "encoders.A: pooling: the model has no cls; set pooling to mean or pooler"


def test_a_model_without_a_pooler_is_refused_in_one_line():
    class Bare(torch.nn.Module):
        def forward(self, pixel_values):
            return SimpleNamespace(last_hidden_state=pixel_values.flatten(2))

    with pytest.raises(InputError, match=r"^pooling: the model has no pooler; set pooling to cls or mean$"):
        PooledNetwork(Bare(), "pooler")(torch.zeros(1, 3, 4, 4))


def test_pooling_is_set_where_it_has_an_effect(saved, folder_of):
    settings = settings_of("vit", saved / "vit")
    del settings["pooling"]
    with pytest.raises(InputError, match=r"^encoders\.A: pooling: missing; set it to cls or mean or pooler"):
        resolve_encoder("A", settings)
    assert "pooling: the backend clip has no choice of pooling" in refused("clip", saved / "clip", pooling="cls")
    # As before this key existed, so that no photo is embedded again.
    assert "pooling" not in EncoderSettings(backend="siglip").model_dump()
    assert EncoderSettings(backend="dino", model="x", pooling="cls").model_dump()["pooling"] == "cls"


def test_weights_that_only_the_pooler_needs_may_be_missing(saved, folder_of):
    transformers = hub.import_transformers()
    folder = folder_of("vit")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.ViTForImageClassification(config)  # has a head, and no pooler
    model.save_pretrained(folder)
    encoder = load_encoder(resolve("vit", folder, pooling="cls"))
    expected = by_transformers(folder, lambda model, pixels: model(pixel_values=pixels).last_hidden_state[:, 0])
    assert_same(rows_of(encoder), expected)
    assert "lacks 2 of the weights, the first pooler.dense.bias" in refused("vit", folder, pooling="pooler")


# Preprocessing


@pytest.mark.parametrize("kind", [kind for kind in image_processor.DEFAULTS if kind != "DINOv3ViTImageProcessor"])
def test_missing_keys_of_an_image_processor_have_the_defaults_of_transformers(kind):
    default = getattr(hub.import_transformers(), f"{kind}Pil")()
    is_patches = kind == "Siglip2ImageProcessor"
    found = image_processor.read_preprocessing("x", {}, (kind,), patch_size=16 if is_patches else None)
    assert found.resample == int(default.resample)
    assert ([*found.mean], [*found.std]) == ([*default.image_mean], [*default.image_std])
    if is_patches:
        assert found.size == 16 * 16
    else:
        assert found.resized_side in {*dict(default.size).values()}
        assert found.size == (default.crop_size.height if default.do_center_crop else found.resized_side)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("CLIP", {"size": 224, "crop_size": 224}),
        ("CLIP", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "resample": 2}),
        ("CLIP", {"size": {"shortest_edge": 75}, "crop_size": 64, "do_center_crop": True}),
        ("Bit", {"size": {"shortest_edge": 256}, "do_center_crop": False}),
        (
            "ViT",
            {"size": {"height": 80, "width": 80}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
        ),
        ("DeiT", {"resample": 0}),
        ("Beit", {"size": 64, "do_center_crop": True, "crop_size": 48, "do_rescale": False}),
        ("ConvNext", {"size": {"shortest_edge": 64}}),
        ("ConvNext", {"size": {"shortest_edge": 56}, "crop_pct": 0.95}),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.95}),
        ("MobileNetV2", {"do_normalize": False}),
    ],
    ids=str,
)
def test_the_pixels_of_a_photo_are_those_of_transformers(kind, values):
    processor = getattr(hub.import_transformers(), f"{kind}ImageProcessorPil")(**values)
    preprocessing = image_processor.read_preprocessing("x", values, (f"{kind}ImageProcessor",))
    for photo in photos():
        file = io.BytesIO()
        photo.save(file, "PNG")
        pixels = load_image(file.getvalue(), preprocessing).pixels / 255
        found = ((pixels - preprocessing.mean) / preprocessing.std).transpose(2, 0, 1)
        expected = processor(images=photo)["pixel_values"][0]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_the_pixels_of_a_photo_for_dinov3_are_those_of_transformers_rounded():
    """Its image processor, which needs torchvision, resizes numbers, and rounds none."""
    preprocessing = image_processor.read_preprocessing("x", {"size": SQUARE}, ("DINOv3ViTImageProcessor",))
    for photo in photos():
        file = io.BytesIO()
        photo.save(file, "PNG")
        numbers = torch.tensor(np.asarray(photo), dtype=torch.float32).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(numbers, (64, 64), mode="bilinear", antialias=True)[0]
        difference = load_image(file.getvalue(), preprocessing).pixels - resized.permute(1, 2, 0).numpy()
        assert 0 < np.abs(difference).max() < 1


def test_a_middle_of_a_turned_photo_is_that_of_the_upright_one():
    photo = next(photos())
    preprocessing = Preprocessing(size=32, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize=41)
    files = []
    for orientation, turn in ((1, None), (3, Image.Transpose.ROTATE_180), (8, Image.Transpose.ROTATE_270)):
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        (photo.transpose(turn) if turn is not None else photo).save(file, "PNG", exif=exif)
        files.append(load_image(file.getvalue(), preprocessing).pixels)
    upright, *turned = files
    assert upright.shape == (32, 32, 3)
    for pixels in turned:
        assert np.abs(pixels.astype(int) - upright).max() <= 2  # two rounded passes, in another order


def test_a_preprocessing_without_margin_is_recorded_as_before():
    preprocessing = Preprocessing(size=32, resample=3, mean=(0.5,), std=(0.5,))
    assert preprocessing.to_json().keys() == {"size", "resample", "mean", "std", "crop"}
    margin = Preprocessing(size=32, resample=3, mean=(0.5,), std=(0.5,), resize=40)
    assert margin.to_json()["resize"] == 40
    assert Preprocessing.from_json(margin.to_json()) == margin


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("clip", {"crop_size": 32}, "crop_size: 32 in .* does not match the network, which takes 64 pixels"),
        ("clip", {"crop_size": {"height": 64, "width": 48}}, "crop_size: .* is not square"),
        ("clip", {"size": 48}, "crop_size: .* is larger than the image"),
        (
            "clip",
            {"image_processor_type": "ViTImageProcessor"},
            r"is not supported for this model \(CLIPImageProcessor",
        ),
        ("clip", {"do_pad": True}, r"do_pad: True in .* is not supported \(only false\)"),
        ("dinov2", {"image_processor_type": "SamImageProcessor"}, "image_processor_type: 'SamImageProcessor' in "),
        ("dinov2", {"image_processor_type": None}, "image_processor_type: None in .* is not supported for this model"),
        ("dinov2", {"resample": "sharpest"}, "resample: 'sharpest' in .* is not one of Pillow's filters"),
        ("resnet", {"crop_pct": 0}, "crop_pct: 0 in .* is not a number above 0"),
        ("resnet", {"crop_pct": 2}, "crop_pct: 2 in .* is larger than the image"),
        ("swin", {"do_center_crop": True}, "do_center_crop: True in .* is not supported without a crop_size"),
    ],
)
def test_a_preprocessing_that_cannot_be_honoured_is_one_line(folder_of, model_type, changes, message):
    folder = folder_of(model_type)
    change_json(folder / "preprocessor_config.json", **changes)
    assert re.search(message, refused(model_type, folder))


# The hub


def test_only_the_files_that_are_read_are_downloaded(tmp_path, monkeypatch):
    read = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors", "preprocessor_config.json"]
    tokenizer = ["merges.txt", "spiece.model", "tokenizer.json", "vocab.json"]
    others = ["README.md", "flax_model.msgpack", "open_clip_pytorch_model.safetensors", "pytorch_model.bin"]
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *names, **how: asked.update(how) or tmp_path)
    hub.fetch_checkpoint("someone/tiny", "main")
    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    files = [*read, *tokenizer, *others, "onnx/config.json", "16bit/model.safetensors"]
    assert [*filter_repo_objects(files, **patterns)] == [*read, *tokenizer]


# Wrong checkpoints


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Save checkpoints that no image backend can load: a text model, and one that masks patches at random."""
    transformers = hub.import_transformers()
    folder = tmp_path_factory.mktemp("others")
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=64)).save_pretrained(folder / "bert")
    decoder = {f"decoder_{key}": value for key, value in SIZES.items()}
    mae = transformers.ViTMAEConfig(**VISION, **decoder)
    transformers.ViTMAEModel(mae).save_pretrained(folder / "vit_mae")
    for name in ("bert", "vit_mae"):
        transformers.ViTImageProcessorPil(size=SQUARE).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(
    ("model_type", "backend", "message"),
    [
        ("clip", "siglip", "is of type 'clip'; the backend siglip reads siglip and siglip2; set backend to clip"),
        ("clip", "dino", "is of type 'clip'; the backend dino reads dinov2 and .*; set backend to clip"),
        ("dinov2", "clip", "is of type 'dinov2'; the backend clip reads clip and metaclip_2; set backend to dino"),
        (
            "vit",
            "clip",
            "is of type 'vit'; the backend clip reads clip and metaclip_2; choose another model or backend",
        ),
        ("clip", "transformers", "is of type 'clip', which is no vision model; set backend to clip"),
    ],
)
def test_a_checkpoint_of_another_backend_is_refused_with_that_backend(saved, model_type, backend, message):
    assert re.search(message, refused(model_type, saved / model_type, backend=backend))


@pytest.mark.parametrize("backend", ["siglip", "clip", "dino", "transformers"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "is of type 'bert'(; the backend|, which is no vision model; choose another model or backend)"),
        (
            {"model_type": "own"},
            "is of type 'own'(; the backend|, which transformers 5.* does not know; choose another)",
        ),
        ({"model_type": None}, "names no model_type; the backend"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "names code of the checkpoint, which is never run"),
    ],
)
def test_another_kind_of_model_is_refused(others, tmp_path, backend, changes, message):
    folder = Path(shutil.copytree(others / "bert", tmp_path / "bert"))
    change_json(folder / "config.json", **changes)
    assert re.search(message, refused("bert", folder, backend=backend))


def test_a_network_with_random_rows_is_refused(others):
    line = refused("vit_mae", others / "vit_mae", backend="transformers", pooling="mean")
    assert "does not give an image the same row each time" in line


def test_a_size_that_the_network_does_not_take_is_refused(folder_of):
    folder = folder_of("vit")
    change_json(folder / "preprocessor_config.json", size=48)
    line = refused("vit", folder)
    assert re.search(
        r"cannot embed images of 48 pixels \(Input image size .*\); choose another model, or correct", line
    )


@pytest.mark.parametrize("model_type", ["clip", "dinov2", "vit"])
def test_damaged_checkpoints_are_one_line(folder_of, model_type):
    folder = folder_of(model_type)
    weights = folder / "model.safetensors"
    sound, kept = weights.read_bytes(), load_file(weights)
    name = next(name for name in sorted(kept) if name.endswith("layernorm.weight"))
    weights.write_bytes(sound[:-100])
    assert re.search(r"model\.safetensors' is damaged \(.+\); download or copy", refused(model_type, folder))
    weights.write_bytes(sound)
    change_weights(folder, **{name: None})
    assert f"lacks 1 of the weights, the first {name}" in refused(model_type, folder)
    change_weights(folder, **{name: torch.ones(7)})
    assert f"the weight {name} has shape (7,), but config.json describes (32,)" in refused(model_type, folder)
    change_weights(folder, **{name: torch.full((32,), torch.nan)})
    assert "not finite; choose another checkpoint" in refused(model_type, folder)
    weights.write_bytes(sound)
    (folder / "preprocessor_config.json").unlink()
    assert "has neither preprocessor_config.json nor processor_config.json" in refused(model_type, folder)
    (folder / "config.json").unlink()
    assert "holds no checkpoint (config.json is missing)" in refused(model_type, folder)


@pytest.mark.parametrize("model_type", ["dinov2", "dinov3_vit", "vit"])
def test_layers_that_the_configuration_leaves_out_are_named(folder_of, model_type):
    folder = folder_of(model_type)
    change_json(folder / "config.json", num_hidden_layers=1, out_features=None, out_indices=None, stage_names=None)
    line = refused(model_type, folder)
    assert re.search(r"holds 1\d weights that config\.json does not describe, the first .*layers?\.1\.", line)


def test_layers_of_a_tower_that_the_configuration_leaves_out_are_named(folder_of):
    folder = folder_of("clip")
    change_json(folder / "config.json", vision_config={**VISION, "num_hidden_layers": 1})
    assert "holds 16 weights that config.json does not describe, the first vision_model." in refused("clip", folder)


def test_weights_that_change_after_they_were_resolved_are_noticed(folder_of):
    folder = folder_of("dinov2")
    provenance = resolve("dinov2", folder)
    save_file(
        {name: weight + 1 for name, weight in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(InputError, match=r"^encoders\.A\.model: .* no longer matches encoder\.json"):
        load_encoder(provenance)


def test_a_clip_checkpoint_without_a_tokenizer_embeds_no_texts(folder_of):
    folder = folder_of("clip")
    save_old_tokenizer(folder)
    for name in ("merges.txt", "vocab.json"):
        (folder / name).unlink()
        with pytest.raises(InputError, match="has no tokenizer, so it cannot embed text"):
            load_text_encoder(resolve("clip", folder))


def test_dino_understands_no_text(saved):
    with pytest.raises(InputError, match=r"^A does not understand text; choose an encoder of the backend clip or "):
        load_text_encoder(resolve("dinov2", saved / "dinov2"))
