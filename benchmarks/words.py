"""Judge the words of the offline encoder on photos that were not used to choose anything: the stamps of Tux Paint.

python benchmarks/words.py                          # Debian's package tuxpaint-stamps-default
python benchmarks/words.py --folder PATH            # the folder `stamps` of its source

Most stamps are photos of one thing before a white ground. Their folders and names say what they show. The second table
has the time that embedding a list of words takes once, with a text tower of the base size and random weights.
"""

import argparse
import re
import resource
import tempfile
import time
from pathlib import Path

import material
import numpy as np

from crossfilter_inference.encoders import registry
from crossfilter_inference.errors import InputError
from crossfilter_inference.map.settings import WORDS_FILE
from crossfilter_inference.map.words import embed_words, find_fits
from crossfilter_inference.photos.image import load_image

DRAWN = ("cartoon", "symbols", "toys", "seasonal", "planets", "roadsigns/", "flags", "outline", "clothespin")
# What shows the word: a pattern of the paths.
WORDS = {
    "bird": "animals/birds",
    "fish": "animals/fish/(?!lobster|shrimp)",
    "insect": "insects/(hornet|grasshopper|xanthia|mantis|fly|hoverfly|bee)",
    "frog": "frog",
    "mammal": "animals/(mammals|marsupials)",
    "monkey or ape": "animals/mammals/apes",
    "big cat": "animals/mammals/cats",
    "bear": "animals/mammals/bears|koala",
    "rabbit": "rabbit",
    "sheep": "sheep|/ram",
    "dog": "mammals/dogs/d",
    "fruit": "food/fruit|pumpkin|rambutan",
    "vegetable": "food/vegetables|plants/(lettuce|eggplant)",
    "mushroom": "mushroom|plants/mushrooms",
    "flower": "plants/flowers",
    "hat": "clothes/hats|baseballcap",
    "musical instrument": "hobbies/music",
    "guitar": "guitar",
    "hand tool": "household/tools/(wrench|plyers|saw|hammer|mallet|spade)",
    "motor vehicle": "vehicles/(garbage|race|emergency|construction|auto|wheel_tractor|mass)|infantry|bradley|cement",
}
UNKNOWN = ("windmill", "pyramid", "solar panel", "sunset", "birthday party")


def read_photos(folder: Path) -> list[Path]:
    """List the stamps that are photos."""
    paths = sorted(folder.rglob("*.png"))
    return [path for path in paths if not any(word in str(path.relative_to(folder)) for word in DRAWN)]


def judge(folder: Path) -> None:
    """Print the first photos for each word, and how many of them show it."""
    settings = {"backend": "efficientnet_lite0", "dtype": "auto", "runtime": "torch"}
    provenance = registry.resolve_encoder("EFFICIENTNET_LITE0", settings)
    encoder = registry.load_encoder(provenance, "cpu", material.N_CORES)
    texts = registry.load_text_encoder(provenance)
    paths = read_photos(folder)
    pixels = np.stack([load_image(path.read_bytes(), encoder.preprocessing).pixels for path in paths])
    rows = np.concatenate([encoder.encode_images(pixels[i : i + 1]) for i in range(len(pixels))])
    names = [str(path.relative_to(folder)) for path in paths]
    print(
        f"{len(paths)} photos. Precision is the share of the first five photos (or of as many as there are) that show"
    )
    print("the word. The last column has the photos that the globe finds: how many, and how many of them show it.\n")
    print("| word | photos that show it | precision | the first photos | found |\n|---|---|---|---|---|")
    precisions = []
    for word, pattern in WORDS.items():
        shows = np.array([bool(re.search(pattern, name)) for name in names])
        if not shows.any():
            continue
        vector = texts.encode_texts([word])
        first = np.argsort(-(rows @ vector[0]))[: min(5, shows.sum())]
        precisions.append(shows[first].mean())
        found = next(iter(find_fits(rows, [word], vector)))
        fitting = found.photos if found.stand_out else found.photos[:0]
        listed = ", ".join(f"{'' if shows[row] else 'not: '}{Path(names[row]).stem}" for row in first)
        right = f"{len(fitting)}, {shows[fitting].sum()} right"
        print(f"| {word} | {shows.sum()} | {precisions[-1]:.2f} | {listed} | {right} |")
    print(f"| mean | | {np.mean(precisions):.2f} | | |\n")
    for word in UNKNOWN:
        try:
            texts.encode_texts([word])
        except InputError as error:
            print(f"- {str(error).partition('; for any')[0]}")
        else:
            print(f"- {word!r} is known")


def time_texts(size: str) -> None:
    """Print the time of embedding the list of words with a text tower."""
    with tempfile.TemporaryDirectory() as folder:
        model = material.make_checkpoint(Path(folder, "model"), size)
        settings = {"backend": "siglip", "model": model, "revision": "main", "dtype": "float32", "runtime": "torch"}
        provenance = registry.resolve_encoder("SIGLIP2", settings)
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        n_words = embed_words(provenance, WORDS_FILE, f"{folder}/words.npz")
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print("\n| text tower | words | wall, s | CPU, s |\n|---|---|---|---|")
    print(f"| {size} | {n_words} | {wall:.1f} | {cpu:.1f} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    options.add_argument("--model", choices=material.SIZES, default="base-patch16-224", help="size of the text tower")
    arguments = options.parse_args()
    if arguments.folder.is_dir():
        judge(arguments.folder)
    else:
        print(f"{arguments.folder} does not exist; install tuxpaint-stamps-default, or give --folder, to judge words")
    time_texts(arguments.model)


if __name__ == "__main__":
    main()
