"""Damage JPEGs at random places in their scans, and count those that are embedded differently without being failed.

Whole files of several encoders and layouts must all be embedded. `mozjpeg_lossless_optimization`, `pyjpegli`, `cjpeg`
and `jpegtran` are used if installed. Example:

    PYTHONPATH=workflow python benchmarks/damage.py --damaged 2000 --whole 2000
"""

import argparse
import functools
import importlib.util
import io
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from crossfilter_inference.encoders import registry
from crossfilter_inference.photos.image import ImageError, LoadedImage, load_image

PROJECT = Path(__file__).resolve().parent.parent
FAR = 0.05  # 1 - cosine; the nearest two demo photos are .48 apart
UNHEARD = ("cjpeg arithmetic", "cjpeg 4:1:0")  # whose decoders never warn; cameras write neither
LEAST = 512  # bytes
PHOTOS = sorted((PROJECT / "demo" / "photos").rglob("*.jpg"))

Change = Callable[[bytes, random.Random], bytes]


# Encoders ------------------------------------------------------------------------------------------------------------


def pillow(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def command(*words: str) -> Callable[[Image.Image], bytes]:
    """Encode with cjpeg, or rewrite with jpegtran."""

    def encode(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.save(file, *(["PPM"] if words[0] == "cjpeg" else ["JPEG"]))
        return subprocess.run(words, input=file.getvalue(), stdout=subprocess.PIPE, check=True).stdout

    return encode


def encoders() -> dict[str, Callable[[Image.Image], bytes]]:
    """Return the encoders that are installed, by name."""
    named: dict[str, Callable[[Image.Image], bytes]] = {
        "quality 75": functools.partial(pillow, quality=75),
        "quality 95, 4:4:4": functools.partial(pillow, quality=95, subsampling=0),
        "optimised": functools.partial(pillow, quality=88, optimize=True),
        "progressive": functools.partial(pillow, quality=85, progressive=True),
        "restart markers": functools.partial(pillow, quality=90, restart_marker_rows=1),
        "grey": lambda image: pillow(image.convert("L"), quality=90),
        "CMYK": lambda image: pillow(image.convert("CMYK"), quality=90),
    }
    if shutil.which("cjpeg"):
        named |= {
            "cjpeg 4:1:0": command("cjpeg", "-sample", "4x2,1x1,1x1", "-quality", "90"),
            "cjpeg 4:4:0": command("cjpeg", "-sample", "1x2,1x1,1x1", "-quality", "90"),
            "cjpeg arithmetic": command("cjpeg", "-arithmetic", "-quality", "85"),
            "cjpeg RGB": command("cjpeg", "-rgb", "-quality", "85"),
        }
    if shutil.which("jpegtran"):
        scans = str(Path(__file__).with_name("one_component_per_scan.txt"))
        named["a scan per component"] = command("jpegtran", "-scans", scans)
    if importlib.util.find_spec("mozjpeg_lossless_optimization"):
        import mozjpeg_lossless_optimization as mozjpeg

        named["mozjpeg"] = lambda image: mozjpeg.optimize(pillow(image, quality=85))
    if importlib.util.find_spec("pyjpegli"):
        import pyjpegli

        named["jpegli"] = lambda image: pyjpegli.encode(image.tobytes(), *image.size, 90)
    return named


# Layouts and damage --------------------------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2, "big") + data


LAYOUTS: dict[str, Change] = {
    "as written": lambda data, rng: data,
    "a motion photo": lambda data, rng: data + b"\0\0\0\x18ftypmp42" + rng.randbytes(5000) + b"\xff\xd8\xff\xd9",
    "a second picture behind it": lambda data, rng: data + data,
    "a thumbnail in its EXIF": lambda data, rng: (
        data[:2] + segment(0xE1, b"Exif\0\0" + pillow(Image.new("RGB", (160, 120)))) + data[2:]
    ),
    "60 KB of comments": lambda data, rng: data[:2] + segment(0xFE, rng.randbytes(60_000)) + data[2:],
    "without an end marker": lambda data, rng: data[:-2],
    "half an end marker": lambda data, rng: data[:-1],
    "zeros for its end marker": lambda data, rng: data[:-2] + bytes(rng.randrange(1, 5000)),
    "zeros before its end marker": lambda data, rng: data[:-2] + bytes(rng.randrange(1, 50)) + data[-2:],
    "fill bytes before its end marker": lambda data, rng: data[:-2] + b"\xff" * rng.randrange(1, 50) + data[-2:],
    "a byte too many": lambda data, rng: data[:-2] + b"\x5a" + data[-2:],
    "garbage between its segments": lambda data, rng: data.replace(b"\xff\xda", b"\1\2\3\xff\xff\xda", 1),
    "JFIF 3": lambda data, rng: data.replace(b"JFIF\0\1", b"JFIF\0\3", 1),
}


def scan_of(data: bytes) -> tuple[int, int]:
    """Return where the coded data begin and end; between the scans of a progressive file there are headers, too."""
    start = data.index(b"\xff\xda") + 14
    return start, len(data) - 2


def place(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Choose a part of the scan, of at least 512 bytes, more often a short one."""
    start, end = scan_of(data)
    length = int(LEAST * ((end - start) / LEAST / 2) ** rng.random())
    at = rng.randrange(start, end - length)
    return at, at + length


def overwrite(make: Callable[[bytes, int, random.Random], bytes]) -> Change:
    def change(data: bytes, rng: random.Random) -> bytes:
        at, end = place(data, rng)
        return data[:at] + make(data, end - at, rng) + data[end:]

    return change


def elsewhere(data: bytes, length: int, rng: random.Random) -> bytes:
    start, end = scan_of(data)
    at = rng.randrange(start, end - length)
    return data[at : at + length]


DAMAGE: dict[str, Change] = {
    "cut": lambda data, rng: data[: place(data, rng)[0]],
    "cut, with an end marker": lambda data, rng: data[: place(data, rng)[0]] + b"\xff\xd9",
    "zeros to the end": lambda data, rng: data[: (at := place(data, rng)[0])] + bytes(len(data) - at),
    "zeroed": overwrite(lambda data, length, rng: bytes(length)),
    "ones": overwrite(lambda data, length, rng: b"\xff" * length),
    "random bytes": overwrite(lambda data, length, rng: rng.randbytes(length)),
    "another part of the scan": overwrite(elsewhere),
    "taken out": overwrite(lambda data, length, rng: b""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damaged", type=int, default=2000, help="number of damaged files")
    parser.add_argument("--whole", type=int, default=2000, help="number of whole files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for the files that come out wrong")
    arguments = parser.parse_args()
    Damage(arguments.seed, arguments.output).measure(arguments.damaged, arguments.whole)


class Damage:
    """Embeds damaged and whole files with the small encoder."""

    def __init__(self, seed: int, output: Path | None = None):
        settings = {"backend": "efficientnet_lite0", "dtype": "float32", "runtime": "torch"}
        self.encoder = registry.load_encoder(registry.resolve_encoder("BENCH", settings), "cpu", 1)
        self.seed, self.output, self.encoders = seed, output, encoders()

    @functools.cache  # noqa: B019
    def file(self, photo: int, encoder: str) -> bytes:
        """Encode a demo photo at 640 pixels or less."""
        with Image.open(PHOTOS[photo]) as image:
            image = image.convert("RGB")
            image.thumbnail((640, 640))
        return self.encoders[encoder](image)

    @functools.cache  # noqa: B019
    def row(self, photo: int, encoder: str) -> np.ndarray:
        """Embed a whole file."""
        return self.embed(self.load(self.file(photo, encoder)))

    def load(self, data: bytes) -> LoadedImage:
        """Decode a file as the workflow does."""
        return load_image(data, self.encoder.preprocessing)

    def embed(self, loaded: LoadedImage) -> np.ndarray:
        """Embed a decoded file; the row has unit length."""
        row = self.encoder.encode_images(loaded.pixels[None].copy())[0]
        return row / np.linalg.norm(row)

    def measure(self, n_damaged: int, n_whole: int) -> tuple[int, int]:
        """Print the figures; return the numbers of damaged files that are missed, and of whole ones that fail."""
        outcomes: Counter[str] = Counter()
        missed, failed = [], []
        for number in range(n_damaged):
            rng = random.Random(f"{self.seed} {number}")
            named = [name for name in self.encoders if name not in UNHEARD]
            photo, encoder, damage = rng.randrange(len(PHOTOS)), rng.choice(named), rng.choice([*DAMAGE])
            data = DAMAGE[damage](self.file(photo, encoder), rng)
            try:
                distance = 1 - float(self.embed(self.load(data)) @ self.row(photo, encoder))
            except ImageError as error:
                outcomes[error.reason] += 1
                continue
            outcomes["embedded, nearly the same" if distance <= FAR else "missed"] += 1
            if distance > FAR:
                missed.append(f"{number}: {encoder}, {damage}, 1 - cosine {distance:.3f}")
                self.keep(f"missed-{self.seed}-{number}.jpg", data)
        print(f"damaged: {n_damaged}; {', '.join(f'{name}: {n}' for name, n in sorted(outcomes.items()))}")
        print("".join(f"    {line}\n" for line in missed), end="")
        for number in range(n_whole):
            rng = random.Random(f"{self.seed} {number} whole")
            photo, encoder, layout = rng.randrange(len(PHOTOS)), rng.choice([*self.encoders]), rng.choice([*LAYOUTS])
            if encoder in UNHEARD and "end marker" in layout:
                layout = "as written"
            data = LAYOUTS[layout](self.file(photo, encoder), rng)
            try:
                same = np.array_equal(self.load(data).pixels, self.load(self.file(photo, encoder)).pixels)
            except ImageError as error:
                same, layout = False, f"{layout}: {error}"
            if not same:
                failed.append(f"{number}: {encoder}, {layout}")
                self.keep(f"failed-{self.seed}-{number}.jpg", data)
        print(f"whole: {n_whole}, of {len(self.encoders)} encoders; failed or of other pixels: {len(failed)}")
        print("".join(f"    {line}\n" for line in failed), end="")
        return len(missed), len(failed)

    def keep(self, name: str, data: bytes) -> None:
        """Write a file that came out wrong, to look at it."""
        if self.output:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / name).write_bytes(data)


if __name__ == "__main__":
    main()
