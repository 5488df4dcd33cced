"""What the benchmarks work on: photos of a given size, a checkpoint of full size, a planned shard."""

import os
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from crossfilter_inference.plan import make_plan, write_manifest, write_plan
from crossfilter_inference.scan import scan_folders

DEMO = Path(__file__).resolve().parent.parent / "demo" / "photos"
# hidden size, intermediate size, layers, heads, side of an image, of a patch; as the checkpoints on the hub.
SIZES = {
    "base-patch16-224": (768, 3072, 12, 12, 224, 16),
    "so400m-patch14-384": (1152, 4304, 27, 16, 384, 14),
}


def make_photos(folder: Path, megapixels: float) -> Path:
    """Make JPEGs of a size from the demo photos, with the grain that gives them a camera's bytes per pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for path in sorted(DEMO.glob("*.jpg")):
        if (folder / path.name).exists():
            continue
        with Image.open(path) as image:
            scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
            size = round(image.width * scale), round(image.height * scale)
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        grain = random.normal(0, 5, (*pixels.shape[:2], 1))
        photo = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
        photo.save(folder / path.name, quality=90)
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
        transformers.Siglip2Tokenizer().save_pretrained(folder)  # sentence-transformers wants to see one
        transformers.SiglipImageProcessorPil(size={"height": image, "width": image}).save_pretrained(folder)
    return str(folder)


def plan_shard(folder: Path, photos: Path, n_photos: int) -> list[str]:
    """Plan one shard of `n_photos` photos, the same ones again and again if there are fewer; return their paths."""
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
