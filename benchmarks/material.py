"""Material of the benchmarks: photos, a checkpoint of full size, a planned shard, embeddings with labels."""

import gzip
import json
import os
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from crossfilter_inference.encoders import registry
from crossfilter_inference.photos.image import load_image
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.shards.plan import make_plan, write_manifest, write_plan

_FASHION = Path("/usr/share/datasets/fashion-mnist")
EMOJI = "emoji-datasource-google@16.0.0"
N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DEMO = Path(__file__).resolve().parent.parent / "demo" / "photos"
DEMO_PHOTOS = sorted(DEMO.rglob("*.jpg"), key=lambda path: path.name)
# hidden size, intermediate size, layers, heads, side of an image, of a patch; as the checkpoints on the hub.
SIZES = {
    "base-patch16-224": (768, 3072, 12, 12, 224, 16),
    "so400m-patch14-384": (1152, 4304, 27, 16, 384, 14),
    "tiny": (32, 64, 2, 2, 32, 8),  # for the tests of the benchmarks
}


def make_photos(folder: Path, megapixels: float, n_photos: int) -> Path:
    """Make JPEGs of a size from the first demo photos, with the grain that gives them a camera's bytes per pixel."""
    folder.mkdir(parents=True, exist_ok=True)

    def make(number: int, path: Path) -> None:
        with Image.open(path) as image:
            scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
            size = round(image.width * scale), round(image.height * scale)
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        grain = np.random.default_rng(number).normal(0, 5, (*pixels.shape[:2], 1))
        photo = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{path.name}.part", "JPEG", quality=90)
        (folder / f"{path.name}.part").rename(folder / path.name)

    with ThreadPoolExecutor(N_CORES) as pool:
        missing = [item for item in enumerate(DEMO_PHOTOS[:n_photos]) if not (folder / item[1].name).exists()]
        list(pool.map(make, *zip(*missing, strict=True)))
    return folder


def make_checkpoint(folder: Path, name: str) -> str:
    """Make a SigLIP checkpoint of full size with random weights, and return its folder."""
    if not (folder / "preprocessor_config.json").exists():
        import torch
        import transformers

        hidden, intermediate, layers, heads, image, patch = SIZES[name]
        sizes = {"hidden_size": hidden, "intermediate_size": intermediate}
        sizes |= {"num_hidden_layers": layers, "num_attention_heads": heads}
        torch.manual_seed(0)
        config = transformers.SiglipConfig(
            text_config={**sizes, "vocab_size": 256000},
            vision_config={**sizes, "image_size": image, "patch_size": patch},
        )
        transformers.SiglipModel(config).save_pretrained(folder)
        transformers.Siglip2Tokenizer().save_pretrained(folder)  # sentence-transformers requires one
        transformers.SiglipImageProcessorPil(size={"height": image, "width": image}).save_pretrained(folder)
    return str(folder)


def plan_shard(folder: Path, photos: Path, n_photos: int) -> list[str]:
    """Plan one shard of `n_photos` photos, repeating them if necessary; return their paths."""
    links = folder / "photos"
    links.mkdir(parents=True)
    (folder / "embeddings").mkdir()
    sources = sorted(photos.glob("*.jpg"))
    for number in range(n_photos):
        os.symlink(sources[number % len(sources)], links / f"{uuid.UUID(int=number)}.jpg")
    plan = make_plan({}, scan_folders([str(links)], [".jpg"]).images, [], n_photos)
    write_plan(folder / "plan.tsv", plan)
    write_manifest(folder / "plan.tsv", folder / "manifest.tsv", folder / "rejected.tsv", folder / "shards")
    return [image.path for image in plan.images]


def make_clusters(n_images: int, n_dims: int = 768) -> tuple[np.ndarray, np.ndarray]:
    """Make embeddings in clusters of 100, ten of which are near each other; return them and their clusters."""
    random = np.random.default_rng(0)
    n_clusters = max(10, n_images // 100)
    centres = random.normal(size=(n_clusters, n_dims))
    centres += 1.5 * random.normal(size=(n_clusters // 10 + 1, n_dims))[np.arange(n_clusters) // 10]
    labels = random.integers(0, n_clusters, n_images)
    rows = (centres[labels] + 1.5 * random.normal(size=(n_images, n_dims))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def load_fashion() -> tuple[np.ndarray, np.ndarray] | None:
    """Load the 70,000 pictures of Fashion-MNIST and their labels; None if Debian's package is not installed."""
    if not _FASHION.exists():
        return None
    pictures, labels = [], []
    for part in ("train", "t10k"):
        with gzip.open(_FASHION / f"{part}-images-idx3-ubyte.gz") as file:
            pictures.append(np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784).astype(np.float32))
        with gzip.open(_FASHION / f"{part}-labels-idx1-ubyte.gz") as file:
            labels.append(np.frombuffer(file.read()[8:], np.uint8))
    rows = np.vstack(pictures)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.concatenate(labels)


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Load scikit-learn's 1,797 digits: 64 pixels each, and which digit it is."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.data / np.linalg.norm(digits.data, axis=1, keepdims=True)).astype(np.float32), digits.target


def load_emoji(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed the 1,911 emoji of an npm package with the offline encoder; the labels are their 99 subcategories."""
    kept = folder / "emoji.npz"
    if not kept.exists():
        subprocess.run(["npm", "pack", "--silent", EMOJI], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        shutil.unpack_archive(next(folder.glob("emoji-datasource-google-*.tgz")), folder)
        emoji = [entry for entry in json.loads((folder / "package/emoji.json").read_text()) if entry["has_img_google"]]
        settings = {"backend": "efficientnet_lite0", "dtype": "auto", "runtime": "torch"}
        encoder = registry.load_encoder(registry.resolve_encoder("EMOJI", settings), "cpu", N_CORES)
        files = [folder / "package/img/google/64" / entry["image"] for entry in emoji]
        pixels = np.stack([load_image(file.read_bytes(), encoder.preprocessing).pixels for file in files])
        rows = [encoder.encode_images(pixels[start : start + 1]) for start in range(len(pixels))]
        labels = np.unique([entry["subcategory"] for entry in emoji], return_inverse=True)[1]
        np.savez(kept, rows=np.concatenate(rows), labels=labels)
    emoji = np.load(kept)
    return emoji["rows"], emoji["labels"]
