"""A SigLIP checkpoint, built from a small configuration, saved, and loaded like a user's."""

import io
import json
import os
import string
from itertools import pairwise
from uuid import UUID

import numpy as np
import pytest
import torch
from conftest import DEMO_PHOTOS, PROJECT, demo_photo, new_collection, page_data
from PIL import Image
from test_kill import started, wait_until

from crossfilter_inference.db.connect import reading
from crossfilter_inference.db.embeddings import read_embeddings
from crossfilter_inference.embed.job import embed_shard
from crossfilter_inference.encoders.registry import load_text_encoder, resolve_encoder
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.shards.plan import make_plan, write_manifest, write_plan

os.environ["HF_HUB_OFFLINE"] = "1"


def save_checkpoint(folder, model_type):
    """Save a tiny checkpoint with random weights; returns transformers' own image processor and model."""
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


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def siglip_run(tmp_path_factory):
    """A run with a map and a checkpoint from the cache, read-only; with transformers' own processor and model."""
    folder = tmp_path_factory.mktemp("siglip")
    repository = folder / "hub" / "models--someone--tiny-siglip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    checkpoint = repository / "snapshots" / COMMIT
    processor, model = save_checkpoint(checkpoint, "siglip")
    save_siglip_tokenizer(checkpoint)
    encoders = {"SIGLIP2": {"backend": "siglip", "model": "someone/tiny-siglip"}}
    settings = {"embedding_type": "SIGLIP2", "encoders": encoders, "reproject_umap_embeddings": True}
    collection = new_collection(folder / "collection", 30, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        assert collection.run()["embed_words"] == 1
        yield collection, checkpoint, processor, model


def check_rows(collection, n_photos, processor, model):
    """The rows equal those of transformers."""
    with reading(collection.database) as connection:
        uuids, embeddings = read_embeddings(connection, "SIGLIP2")
    assert embeddings.shape == (n_photos, 32)
    for uuid, embedding in zip(uuids, embeddings, strict=True):
        with torch.no_grad():
            features = model.get_image_features(**processor(images=square(uuid), return_tensors="pt")).pooler_output[0]
        expected = torch.nn.functional.normalize(features, dim=0).numpy()
        assert 1 - np.dot(embedding.astype(float), expected.astype(float)) < 1e-6
    assert collection.dry_run() == {}


def square(uuid):
    """Crop a demo photo to the square that the encoder sees."""
    with Image.open(demo_photo(uuid)) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").crop((left, top, left + side, top + side))


@pytest.mark.slow
def test_rows_of_siglip_equal_those_of_transformers(siglip_run):
    collection, _, processor, model = siglip_run
    check_rows(collection, 30, processor, model)
    assert collection.sql("SELECT count(*) FROM {T}_UMAP_HAVERSINE") == [(30,)]
    assert collection.sql("SELECT count(*) FROM {T}_UMAP_MODEL") == [(1,)]


@pytest.mark.slow
def test_rows_of_siglip2_equal_those_of_transformers(make_collection, tmp_path):
    processor, model = save_checkpoint(tmp_path / "checkpoint", "siglip2")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "checkpoint")}}
    collection = make_collection(11, embedding_type="SIGLIP2", encoders=encoders)
    collection.run()
    check_rows(collection, 11, processor, model)


@pytest.mark.slow
def test_a_checkpoint_in_the_cache_needs_no_network(siglip_run):
    collection, *_ = siglip_run
    assert len(collection.embeddings()) == 30
    assert collection.sql("SELECT VALUE FROM {T}_PROVENANCE WHERE KEY = 'encoder_commit'") == [(COMMIT,)]


def test_without_network_and_checkpoint_one_line_lists_the_fixes(make_collection, tmp_path):
    collection = make_collection(3, embedding_type="SIGLIP2")
    done = collection.snakemake(env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")})
    assert done.returncode == 1
    [line] = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert line in done.stdout.strip().splitlines()[-6:]  # the relevant line is the last one
    assert line.startswith("error: encoders.SIGLIP2: model:")
    assert "'google/siglip2-base-patch16-224' is not in the local cache and the hub cannot be reached" in line
    for fix in ("the same command once with network access", "set model to a folder", "EFFICIENTNET_LITE0"):
        assert fix in line
    assert "Traceback" not in done.stdout
    assert not collection.database.exists()


@pytest.mark.slow
def test_another_kind_of_model_is_refused(tmp_path):
    import transformers

    config = transformers.ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match="is of type 'vit'; the backend siglip reads siglip and siglip2"):
        resolve_encoder("SIGLIP2", {"backend": "siglip", "model": str(tmp_path / "vit"), "revision": "main"})


TEXTS = ["a red panda on a branch", "A Windmill by the SEA", "x", "", "castle " * 100]


def save_siglip_tokenizer(folder):
    """Train and save a tokenizer of SigLIP's kind, as small as they come, that leaves the case to its user."""
    import sentencepiece
    import transformers

    model, size = io.BytesIO(), {"vocab_size": 64, "hard_vocab_limit": False}
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentences = iter([text.lower() for text in TEXTS if text])
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=sentences, model_writer=model, **size, **special)
    (folder / "spiece.model").write_bytes(model.getvalue())
    transformers.SiglipTokenizer(str(folder / "spiece.model"), do_lower_case=False).save_pretrained(folder)


def save_siglip2_tokenizer(folder):
    """Save a tokenizer of SigLIP2's kind that knows letters."""
    import transformers

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *string.ascii_lowercase, "ca", "st", "cast"]
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.Siglip2Tokenizer(vocabulary, [("c", "a"), ("s", "t"), ("ca", "st")]).save_pretrained(folder)


@pytest.mark.parametrize("model_type", ["siglip", "siglip2"])
def test_text_rows_equal_those_of_transformers(tmp_path, model_type):
    import transformers

    checkpoint = tmp_path / "checkpoint"
    image_processor, model = save_checkpoint(checkpoint, model_type)
    save_tokenizer, kind = {
        "siglip": (save_siglip_tokenizer, transformers.SiglipProcessor),
        "siglip2": (save_siglip2_tokenizer, transformers.Siglip2Processor),
    }[model_type]
    save_tokenizer(checkpoint)
    processor = kind(image_processor, transformers.AutoTokenizer.from_pretrained(checkpoint))
    # As the models were trained: lower case, all 64 tokens.
    full = {"padding": "max_length", "max_length": 64, "truncation": True}
    inputs = processor(text=[text.lower() for text in TEXTS], return_tensors="pt", **full)
    assert inputs["input_ids"].shape == (len(TEXTS), 64)
    with torch.no_grad():
        features = model.get_text_features(**inputs).pooler_output
    expected = torch.nn.functional.normalize(features).numpy()
    provenance = resolve_encoder("T", {"backend": "siglip", "model": str(checkpoint), "revision": "main"})
    encoder = load_text_encoder(provenance)
    rows = encoder.encode_texts(TEXTS)
    assert (rows.shape, rows.dtype) == ((len(TEXTS), 32), np.float32)
    assert (1 - (rows.astype(float) * expected).sum(axis=1)).max() < 1e-6
    assert np.abs(rows[0] - rows[1]).max() > 1e-3, "texts have different embeddings"
    assert np.array_equal(encoder.encode_texts([text.upper() for text in TEXTS]), rows)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert (1 - (alone.astype(float) * expected).sum(axis=1)).max() < 1e-6


@pytest.mark.slow
def test_search_by_text_has_the_order_of_transformers_and_regions_are_named_by_words(siglip_run):
    import transformers

    collection, checkpoint, image_processor, model = siglip_run
    words = (PROJECT / "workflow/crossfilter_inference/map/words.txt").read_text().splitlines()
    with np.load(collection.state / "words.npz") as arrays:
        assert arrays["words"].tolist() == words
        assert arrays["embeddings"].shape == (len(words), 32)
    data = page_data(collection.state / "map.html")
    assert data["regions"]
    assert {region["name"] for region in data["regions"]} <= {*words}

    done = collection.script("search.py", "--text", TEXTS[0], "--n", "30", "--json")
    assert done.returncode == 0, done.stderr
    found = [photo["uuid"] for photo in json.loads(done.stdout)]
    squares = [square(uuid) for uuid in sorted(found)]
    processor = transformers.SiglipProcessor(image_processor, transformers.AutoTokenizer.from_pretrained(checkpoint))
    inputs = processor(images=squares, text=[TEXTS[0]], return_tensors="pt", padding="max_length", max_length=64)
    with torch.no_grad():
        logits = model(**inputs).logits_per_text[0].numpy()
    similarity = dict(zip(sorted(found), logits.tolist(), strict=True))
    ordered = [similarity[uuid] for uuid in found]
    assert all(first >= second - 1e-5 * abs(first) for first, second in pairwise(ordered))


@pytest.mark.slow
def test_a_checkpoint_without_tokenizer_leaves_regions_without_words(make_collection, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", "siglip")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "checkpoint")}}
    collection = make_collection(5, embedding_type="SIGLIP2", encoders=encoders, reproject_umap_embeddings=True)
    done = collection.snakemake()
    assert done.returncode == 0, done.stdout
    assert "cannot name regions by words: encoders.SIGLIP2: model: " in done.stdout
    done = collection.script("search.py", "--text", "a windmill")
    assert done.returncode == 1
    assert "has no tokenizer, so it cannot embed text; " in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_row_is_the_same_in_any_shard_at_any_position_with_any_threads(tmp_path):
    """Bit-identical: alone, among 1,000, first and last, with other neighbours, with one thread and with two."""
    save_checkpoint(tmp_path / "checkpoint", "siglip")
    encoder = resolve_encoder("T", {"backend": "siglip", "model": str(tmp_path / "checkpoint"), "revision": "main"})
    photos = DEMO_PHOTOS

    def rows(name, numbers, **options):
        """Embed the photos of these numbers as one shard; return the embeddings in their order."""
        folder = tmp_path / name
        (folder / "photos").mkdir(parents=True)
        (folder / "embeddings").mkdir()
        for position, number in enumerate(numbers):
            (folder / "photos" / f"{UUID(int=position)}.jpg").symlink_to(photos[number])
        images = scan_folders([str(folder / "photos")], [".jpg"]).images
        write_plan(folder / "plan.tsv", make_plan({}, images, [], 1000))
        write_manifest(folder / "plan.tsv", folder / "manifest.tsv", folder / "rejected.tsv", folder / "shards")
        (folder / "encoder.json").write_text(json.dumps(encoder))
        paths = ("shards/000001.tsv", "plan.tsv", "encoder.json", "embeddings/000001.sqlite")
        settings = {"batch_size": 4, "n_threads": 2, **options}
        embed_shard(*(str(folder / path) for path in paths), database=None, **settings)
        with reading(folder / "embeddings" / "000001.sqlite") as connection:
            return read_embeddings(connection, "T")[1]

    many = [number % 62 for number in range(1000)]
    of_1000 = rows("thousand", many)
    first = of_1000[:62]
    assert all(np.array_equal(row, first[number]) for row, number in zip(of_1000, many, strict=True)), "position"
    assert np.array_equal(rows("alone", [17])[0], first[17])
    assert np.array_equal(rows("one-thread", range(62), n_threads=1), first)
    assert np.array_equal(rows("reversed", range(61, -1, -1))[::-1], first), "other neighbours"
    for batch_size in (1, 7, 62):
        others = rows(f"batches-of-{batch_size}", range(62), batch_size=batch_size)
        assert (1 - (others.astype(float) * first).sum(axis=1)).max() < 1e-6


@pytest.mark.slow
def test_a_run_that_was_killed_gives_the_same_rows(make_collection, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", "siglip")
    encoders = {"SIGLIP2": {"backend": "siglip", "model": str(tmp_path / "checkpoint")}}
    settings = {"embedding_type": "SIGLIP2", "encoders": encoders, "shard_size": 31}
    fresh, killed = (make_collection(62, name, **settings) for name in ("fresh", "killed"))
    fresh.run()
    with started(killed) as process:
        wait_until(lambda: any(killed.state.glob("embeddings/*.part*")), process, "a row")
    assert any(killed.state.glob("embeddings/*.part*"))
    killed.run()
    assert killed.embeddings() == fresh.embeddings()
