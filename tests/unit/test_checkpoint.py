"""Checkpoints as transformers saves them: what is loaded, what is digested, what is refused in one line."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from crossfilter_inference.encoders import checkpoint, hub, pretrained
from crossfilter_inference.encoders.registry import load_encoder, load_text_encoder, resolve_encoder
from crossfilter_inference.errors import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**SIZES, "image_size": 64, "patch_size": 16}
TEXT = {**SIZES, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a tiny SigLIP checkpoint (64 pixels) and a tiny NaFlex one (16 patches), with random weights."""
    transformers = hub.import_transformers()
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    fixed = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    patches = transformers.Siglip2Config(text_config=TEXT, vision_config={**SIZES, "num_patches": 16, "patch_size": 16})
    for name, model, processor in (
        ("siglip", transformers.SiglipModel(fixed), {"size": {"height": 64, "width": 64}}),
        ("siglip2", transformers.Siglip2Model(patches), {"max_num_patches": 16, "patch_size": 16}),
    ):
        model.save_pretrained(folder / name)
        kind = {"siglip": "SiglipImageProcessorPil", "siglip2": "Siglip2ImageProcessorPil"}[name]
        getattr(transformers, kind)(**processor).save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the SigLIP checkpoint, to change at will."""
    return Path(shutil.copytree(saved / "siglip", tmp_path / "checkpoint"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a checkpoint must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def resolve(folder, **settings):
    return resolve_encoder("A", {"backend": "siglip", "model": str(folder), "revision": "main", **settings})


def refused(folder, **settings):
    """Resolve a checkpoint, which must be refused in one line; return the line."""
    with pytest.raises(InputError) as raised:
        resolve(folder, **settings)
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith("encoders.A: model: ")
    return line


def change_json(path, **changes):
    values = json.loads(path.read_text())
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    path.write_text(json.dumps(values))


def change_weights(folder, **changes):
    weights = load_file(folder / "model.safetensors")
    for name, weight in changes.items():
        weights.pop(name, None)
        if weight is not None:
            weights[name] = weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def random_images(n_images=3):
    return np.random.default_rng(0).integers(0, 256, (n_images, 64, 64, 3), dtype=np.uint8)


def rows_by_transformers(folder, images, model_type="siglip"):
    """Embed images with transformers alone: its model, and its own reading of the processor."""
    transformers = hub.import_transformers()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    kind = {"siglip": transformers.SiglipModel, "siglip2": transformers.Siglip2Model}[model_type]
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        features = model.get_image_features(**processor(images=list(images), return_tensors="pt")).pooler_output
    return torch.nn.functional.normalize(features).numpy()


# What transformers 5 saves


@pytest.mark.parametrize("model_type", ["siglip", "siglip2"])
@pytest.mark.parametrize("layout", ["preprocessor", "processor", "both", "processor without images"])
def test_a_processor_is_read_from_the_file_that_transformers_reads(saved, tmp_path, model_type, layout):
    folder = Path(shutil.copytree(saved / model_type, tmp_path / "checkpoint"))
    old, new = folder / "preprocessor_config.json", folder / "processor_config.json"
    values = json.loads(old.read_text())
    mean = [0.1, 0.2, 0.3]
    if layout == "processor without images":  # as transformers 4 wrote it
        new.write_text(json.dumps({"processor_class": "SiglipProcessor"}))
        mean = [0.5, 0.5, 0.5]
    elif layout == "preprocessor":
        old.write_text(json.dumps({**values, "image_mean": mean}))
    else:
        new.write_text(json.dumps({"image_processor": {**values, "image_mean": mean}}))
    if layout == "processor":
        old.unlink()
    provenance = resolve(folder)
    assert provenance["preprocessing"]["mean"] == mean
    rows = load_encoder(provenance).encode_images(random_images())
    assert np.abs(rows - rows_by_transformers(folder, random_images(), model_type)).max() < 1e-6


def test_the_digests_of_a_checkpoint_in_the_old_layout_are_those_of_version_0_1(folder):
    weights, config = (checkpoint.file_sha256(folder / name) for name in ("model.safetensors", "config.json"))
    preprocessor = checkpoint.file_sha256(folder / "preprocessor_config.json")
    assert checkpoint.digests(folder) == {
        "weights_sha256": weights,
        "config_sha256": checkpoint.hashlib.sha256((config + preprocessor).encode()).hexdigest(),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 1.1], "image_std": [1, 2, 3]},
        {"image_std": [0.25, 0.5, 1.0]},
        {"image_mean": 0.4},
        {"size": {"shortest_edge": 64}},
        {"resample": 2},
        {"do_convert_rgb": False},
        {"do_center_crop": False},
        {"rescale_factor": None, "do_rescale": None, "do_normalize": None, "do_resize": None, "image_mean": None},
        {"image_processor_type": "SiglipImageProcessorFast"},
    ],
)
def test_a_key_of_the_processor_is_honoured(folder, changes):
    change_json(folder / "preprocessor_config.json", **changes)
    rows = load_encoder(resolve(folder)).encode_images(random_images())
    assert np.abs(rows - rows_by_transformers(folder, random_images())).max() < 2e-6


@pytest.mark.parametrize(("given", "number"), [("bicubic", 3), ("BILINEAR", 2), ("lanczos", 1), (0, 0)])
def test_resample_may_be_a_name(folder, given, number):
    change_json(folder / "preprocessor_config.json", resample=given, size=64)
    assert resolve(folder)["preprocessing"]["resample"] == number


@pytest.mark.parametrize(
    "changes",
    [
        {"do_resize": False},
        {"do_center_crop": True},
        {"do_pad": True},
        {"do_rescale": "yes"},
        {"do_normalize": 1},
        {"rescale_factor": 0},
        {"rescale_factor": "1/255"},
        {"size": {"height": 64, "width": 32}},
        {"size": {"longest_edge": 64}},
        {"size": {"height": 64, "width": 64, "longest_edge": 64}},
        {"size": 32},
        {"size": -64},
        {"size": [64, 64]},
        {"size": True},
        {"image_mean": [0.5]},
        {"image_mean": [0.5] * 4},
        {"image_mean": "0.5"},
        {"image_mean": [0.5, None, 0.5]},
        {"image_std": [0.5, 0, 0.5]},
        {"image_std": [1e7, 1, 1]},
        {"resample": "sharpest"},
        {"resample": 9},
        {"resample": True},
        {"image_processor_type": "CLIPImageProcessor"},
        {"image_processor_type": ["SiglipImageProcessor"]},
        {"auto_map": {"AutoImageProcessor": "own.Processor"}},
    ],
    ids=str,
)
def test_a_key_of_the_processor_that_cannot_be_honoured_is_named(folder, changes):
    change_json(folder / "preprocessor_config.json", **changes)
    [key] = changes
    assert re.search(rf"model: {key}: .* in '.*preprocessor_config\.json' .*; choose another", refused(folder))


@pytest.mark.parametrize("changes", [{"patch_size": 8}, {"max_num_patches": 0}, {"max_num_patches": "256"}])
def test_patches_other_than_those_of_the_network_are_refused(saved, tmp_path, changes):
    folder = Path(shutil.copytree(saved / "siglip2", tmp_path / "checkpoint"))
    change_json(folder / "preprocessor_config.json", **changes)
    assert f"model: {next(iter(changes))}: " in refused(folder)


# The weights that are loaded are the weights that were digested


@pytest.mark.parametrize("decoy", ["decoy.safetensors", "model.fp16.safetensors", "adapter_model.safetensors"])
def test_files_beside_the_weights_are_neither_loaded_nor_digested(folder, decoy):
    before = resolve(folder)
    save_file({"x": torch.zeros(1)}, folder / decoy)
    (folder / "pytorch_model.bin").write_bytes(b"decoy")
    (folder / "model.safetensors.index.json").write_text("decoy")
    assert resolve(folder) == before
    rows = load_encoder(before).encode_images(random_images())
    shutil.copy(folder / "model.safetensors", folder / "kept")
    for path in (folder / decoy, folder / "pytorch_model.bin", folder / "model.safetensors.index.json"):
        path.unlink()
    assert np.array_equal(rows, load_encoder(before).encode_images(random_images()))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.safetensors", "model.fp16.safetensors", "tf_model.h5"])
def test_weights_of_another_name_or_format_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    if name == "pytorch_model.bin":
        save_file({"x": torch.zeros(1)}, folder / "decoy.safetensors")
    line = refused(folder)
    assert "has neither model.safetensors nor model.safetensors.index.json (it holds " in line
    assert name in line
    assert "save this one again with save_pretrained() of transformers" in line


def test_no_weights_are_unpickled_and_no_code_of_a_checkpoint_is_run(folder, tmp_path):
    harm = tmp_path / "harm"

    class Harmful:
        def __reduce__(self):
            return (open, (str(harm), "w"))

    torch.save({"x": Harmful()}, folder / "pytorch_model.bin")
    (folder / "own.py").write_text(f"open({str(harm)!r}, 'w')\n")
    load_encoder(resolve(folder)).encode_images(random_images())
    change_json(folder / "config.json", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})
    assert re.search(
        r"model: auto_map in '.*config\.json' names code of the checkpoint, which is never", refused(folder)
    )
    change_json(folder / "config.json", auto_map=None)
    (folder / "model.safetensors").unlink()
    refused(folder)
    assert not harm.exists()


@pytest.mark.parametrize("key", ["transformers_weights", "quantization_config"])
def test_a_configuration_that_asks_for_other_weights_is_refused(folder, key):
    change_json(folder / "config.json", **{key: {"a": "pytorch_model.bin"}})
    assert f"model: {key} in " in refused(folder)


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/else"}))
    assert "holds an adapter (adapter_config.json)" in refused(folder)


def shard(folder):
    """Split the weights into two files, as transformers does with large ones."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in files.items():
        save_file({name: weights[name] for name in own}, folder / file)
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, own in files.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_weights_in_several_files_are_loaded_and_digested(folder):
    rows = load_encoder(resolve(folder)).encode_images(random_images())
    shard(folder)
    save_file({"x": torch.zeros(1)}, folder / "decoy.safetensors")
    provenance = resolve(folder)
    assert np.array_equal(load_encoder(provenance).encode_images(random_images()), rows)
    save_file({"x": torch.zeros(2)}, folder / "decoy.safetensors")
    assert resolve(folder) == provenance
    second = folder / "model-00002-of-00002.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(second).items()}, second)
    assert resolve(folder)["weights_sha256"] != provenance["weights_sha256"]
    with pytest.raises(InputError, match=r"no longer matches encoder\.json"):
        load_encoder(provenance)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model-00003-of-00003.safetensors", "lists model-00003-of-00003.safetensors, which is missing"),
        ("../elsewhere.safetensors", "which is not a .safetensors file of the same folder"),
        ("/etc/passwd", "which is not a .safetensors file of the same folder"),
        ("pytorch_model.bin", "which is not a .safetensors file of the same folder"),
        (7, "which is not a .safetensors file of the same folder"),
    ],
)
def test_a_wrong_index_is_refused(folder, name, message):
    weight_map = shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**weight_map, "x": name}}))
    assert message in refused(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    assert "has no weight_map" in refused(folder)


def test_a_weight_that_two_files_hold_is_refused(folder):
    shard(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    assert "repeats the weight" in refused(folder)


@pytest.mark.parametrize("when", ["before", "while loading, and put back"])
def test_weights_that_change_are_noticed(folder, monkeypatch, when):
    provenance = resolve(folder)
    own, other = folder / "model.safetensors", folder.parent / "other"
    shutil.copy(own, other)
    change_weights(folder, **{"vision_model.head.probe": torch.ones(1, 1, 32)})
    if when != "before":
        changed = own.read_bytes()
        shutil.copy(other, own)
        read = pretrained.read_weights

        def read_others(*arguments):
            hidden = own.rename(folder.parent / "hidden")
            own.write_bytes(changed)
            try:
                return {name: weight.clone() for name, weight in read(*arguments).items()}
            finally:
                hidden.rename(own)

        monkeypatch.setattr(pretrained, "read_weights", read_others)
        monkeypatch.setattr(hub, "digests", lambda folder: {key: provenance[key] for key in checkpoint.digests(folder)})
    with pytest.raises(InputError, match=r"^encoders\.A\.model: .*checkpoint' no longer matches encoder\.json"):
        load_encoder(provenance)


@pytest.mark.parametrize("damage", ["shape", "missing", "cut"])
def test_weights_that_are_damaged_after_they_were_resolved_are_noticed(folder, damage):
    provenance = resolve(folder)
    if damage == "cut":
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    else:
        weight = torch.zeros(3, 3) if damage == "shape" else None
        change_weights(folder, **{"vision_model.head.probe": weight})
    with pytest.raises(InputError, match=r"no longer matches encoder\.json"):
        load_encoder(provenance)


def test_a_loaded_encoder_does_not_change_with_its_file(folder):
    encoder = load_encoder(resolve(folder))
    rows = encoder.encode_images(random_images())
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(bytes(100_000))
    assert np.array_equal(encoder.encode_images(random_images()), rows)


def in_cache(folder, cache, monkeypatch):
    """Put a checkpoint into a cache of the hub, as links to blobs; return the folder of its commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    for path in (snapshot, repository / "refs", repository / "blobs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for path in folder.iterdir():
        shutil.copy(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    return snapshot


def test_weights_in_the_hubs_cache_that_changed_are_noticed(folder, tmp_path, monkeypatch):
    snapshot = in_cache(folder, tmp_path / "hub", monkeypatch)
    provenance = resolve("someone/tiny")
    assert provenance["commit"] == snapshot.name
    rows = load_encoder(provenance).encode_images(random_images())
    assert np.array_equal(rows, load_encoder(resolve(folder)).encode_images(random_images()))
    blob = (snapshot / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    message = (
        r"^encoders\.A\.model: the files of 'someone/tiny' in .* no longer match encoder\.json; .*--force-download$"
    )
    with pytest.raises(InputError, match=message):
        load_encoder(provenance)


# Damaged and strange checkpoints


def test_a_sound_checkpoint_is_not_refused(folder):
    assert resolve(folder)["dimension"] == 32


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -5000])
def test_truncated_weights_are_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert re.search(r"model: '.*model\.safetensors' is damaged \(.+\); download or copy", refused(folder))


def test_missing_weights_are_named(folder):
    change_weights(folder, **{"vision_model.head.probe": None, "vision_model.post_layernorm.bias": None})
    assert "lacks 2 of the weights, the first vision_model.head.probe; download or copy" in refused(folder)


def test_weights_that_the_configuration_does_not_describe_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    change_json(folder / "config.json", vision_config={**config["vision_config"], "num_hidden_layers": 1})
    assert re.search(r"holds 16 weights that config\.json does not describe, the first vision_model\.", refused(folder))


def test_weights_of_the_wrong_shape_are_named(folder):
    change_weights(folder, **{"vision_model.head.probe": torch.zeros(1, 1, 16)})
    assert "the weight vision_model.head.probe has shape (1, 1, 16), but config.json describes (1, 1, 32)" in refused(
        folder
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(folder, value):
    probe = torch.zeros(1, 1, 32)
    probe[0, 0, 3] = value
    change_weights(folder, **{"vision_model.head.probe": probe})
    assert "the weight vision_model.head.probe is not finite" in refused(folder)


def test_a_checkpoint_without_preprocessing_is_refused(folder):
    (folder / "preprocessor_config.json").unlink()
    assert "has neither preprocessor_config.json nor processor_config.json with an image_processor" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "names no model_type; the backend siglip reads siglip and siglip2"),
        ({"model_type": "gpt"}, "is of type 'gpt'; the backend siglip reads"),
        ({"model_type": ["siglip"]}, r"is of type \['siglip'\]; the backend siglip reads"),
        ({"vision_config": "x"}, r"config\.json' is not valid \(.+\); download or copy"),
        ({"vision_config": {**SIZES, "hidden_size": "32"}}, r"config\.json' is not valid \(.+\)"),
        ({"vision_config": {**VISION, "num_attention_heads": 5}}, r"config\.json' is not valid \(.+\)"),
        ({"vision_config": {**VISION, "hidden_act": "own"}}, r"config\.json' is not valid \(.+\)"),
        ({"vision_config": {**SIZES, "num_channels": 1}}, r"vision_config\.num_channels in .* is 1, but must be 3"),
        ({"vision_config": {**SIZES, "vision_use_head": False}}, r"vision_config\.vision_use_head in .* is False"),
        ({"vision_config": {**SIZES, "image_size": 32}}, r"size: .* does not match the network, which takes 32"),
    ],
    ids=str,
)
def test_a_wrong_configuration_is_one_line(folder, changes, message):
    change_json(folder / "config.json", **changes)
    assert re.search(message, refused(folder))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff\xfe", "[" * 100_000, '{"image_mean": NaN}'])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_json_file_that_is_damaged_is_named(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    assert re.search(rf"{name}' (cannot be read \(.+\)|holds no JSON object); download or copy", refused(folder))


def test_a_checkpoint_without_a_tokenizer_embeds_no_texts(folder):
    with pytest.raises(InputError, match=r"has no tokenizer, so it cannot embed text"):
        load_text_encoder(resolve(folder))


def test_wrong_weights_of_the_text_tower_are_named(folder):
    change_weights(folder, **{"text_model.final_layer_norm.bias": None})
    with pytest.raises(InputError, match=r"lacks 1 of the weights, the first text_model\.final_layer_norm\.bias"):
        load_text_encoder(resolve(folder))


# The hub


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "../no"])
def test_a_folder_that_does_not_exist_is_named(name):
    assert f"model: the folder {name!r} does not exist; give the path of a checkpoint" in refused(name)


def response(status):
    class Response:
        status_code, headers, request = status, {}, None

    return Response()


def hub_error(kind, status):
    from huggingface_hub import errors

    return getattr(errors, kind)(f"{status} Client Error.\nTwo lines", response=response(status))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            lambda: hub_error("GatedRepoError", 403),
            r"is gated: accept its licence on its page \(https://.+/someone/tiny\), log in",
        ),
        (lambda: hub_error("GatedRepoError", 401), "is gated: accept its licence"),
        (lambda: hub_error("RepositoryNotFoundError", 401), "is neither a folder nor a model on the hub"),
        (lambda: hub_error("RevisionNotFoundError", 404), "with revision 'main'; check both names"),
        (lambda: hub_error("HfHubHTTPError", 401), r"the hub refuses access to 'someone/tiny' \(HTTP 401\); log in"),
        (lambda: hub_error("DisabledRepoError", 403), r"the hub refuses access to 'someone/tiny' \(HTTP 403\); log in"),
        (lambda: hub_error("HfHubHTTPError", 503), r"cannot deliver 'someone/tiny' \(HTTP 503\); try again later"),
        (lambda: OSError(28, "No space left on device", "/x"), "the disk of .* is full"),
        (lambda: OSError(122, "Disk quota exceeded"), "the disk of .* is full"),
        (lambda: PermissionError(13, "Permission denied", "/x"), r"to '/x' \(Permission denied\); fix this"),
        (lambda: ConnectionError("no route"), "is not in the local cache and the hub cannot be reached"),
        (lambda: RuntimeError("of a library"), "is not in the local cache and the hub cannot be reached"),
    ],
)
def test_an_error_of_the_hub_is_one_line(monkeypatch, error, message):
    def fail(*arguments, **options):
        raise error()

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert re.search(message, refused("someone/tiny"))


def test_without_the_hub_the_cause_of_the_libraries_error_counts(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*arguments, **options):
        raise LocalEntryNotFoundError("two\nlines") from hub_error("HfHubHTTPError", 403)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert "refuses access" in refused("someone/tiny")


def test_an_empty_cache_without_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "is not in the local cache and the hub cannot be reached" in refused("someone/tiny")
