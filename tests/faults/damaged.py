"""Small real photos of every format, with random damage that is determined by seed and number."""

import functools
import io
import random
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

DEMO = Path(__file__).resolve().parents[2] / "demo" / "photos"
HEIC = Path(__file__).resolve().parents[1] / "data" / "cases" / "heic-named-jpg.jpg"
_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
DEMO_PHOTOS = sorted(DEMO.rglob("*.jpg"), key=lambda path: path.name)


@functools.cache
def originals() -> tuple[bytes, ...]:
    """Return small photos, JPEGs of every kind twice."""
    paths = DEMO_PHOTOS
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:05:06 07:08:09"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = icc[:24] + bytes(12) + icc[36:]  # the time at which it was made
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a text " * 99, zip=True)
    text.add_text("Title", "a title")
    text.add_itxt("XML:com.adobe.xmp", _XMP.decode(), zip=True)
    sizes = ((64, 48), (97, 131), (200, 300))

    def saved(kind: str, i: int, mode: str = "RGB", size: tuple[int, int] | None = None, **options: object) -> bytes:
        with Image.open(paths[i]) as image:
            image = image.convert("RGB").resize(size or sizes[i % 3])
        image = (
            Image.fromarray(np.asarray(image.convert("L"), np.uint16) << 8) if mode == "I;16" else image.convert(mode)
        )
        if options.get("save_all"):
            options["append_images"] = [image.rotate(90)]
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    jpegs = [
        *(saved("JPEG", i, **options) for i, options in enumerate([{}, {"quality": 95, "subsampling": 0}] * 2)),
        *(saved("JPEG", i, progressive=True, exif=exif) for i in range(4, 7)),
        *(saved("JPEG", i, exif=exif, icc_profile=icc, xmp=_XMP, comment=b"a comment") for i in range(7, 10)),
        *(saved("JPEG", i, "CMYK") for i in (10, 11)),
        *(saved("JPEG", i, "L", restart_marker_rows=1) for i in (12, 13)),
        saved("JPEG", 14, "CMYK", progressive=True),
        saved("JPEG", 15, size=(1400, 1400), quality=10),  # is decoded at half its size
        saved("MPO", 16, save_all=True),
    ]
    others = [
        *(saved("PNG", i, mode) for i, mode in enumerate(["RGB", "RGBA", "P", "LA", "1", "I;16"])),
        saved("PNG", 6, exif=exif, icc_profile=icc, pnginfo=text),
        saved("PNG", 7, save_all=True),
        *(saved("GIF", i, "P", **options) for i, options in enumerate([{}, {"save_all": True}])),
        *(saved("WEBP", i, mode) for i, mode in enumerate(["RGB", "RGBA"])),
        saved("WEBP", 8, lossless=True, exif=exif, icc_profile=icc, xmp=_XMP),
        saved("WEBP", 9, save_all=True),
        *(saved("AVIF", i, mode, speed=10, exif=exif) for i, mode in enumerate(["RGB", "RGBA"])),
        saved("AVIF", 12, speed=10, exif=exif, icc_profile=icc, xmp=_XMP),
        saved("AVIF", 13, speed=10, save_all=True),
        HEIC.read_bytes(),
        *(saved("HEIF", i, mode, exif=exif.tobytes()) for i, mode in enumerate(["RGB", "RGBA", "L"])),
        saved("HEIF", 14, icc_profile=icc, xmp=_XMP, tile_size=64),
        saved("HEIF", 15, save_all=True),
        *(saved("JPEG2000", i, mode) for i, mode in enumerate(["RGB", "L", "RGBA"])),
        saved("JPEG2000", 10, no_jp2=True, tile_size=(64, 64), codeblock_size=(8, 8), precinct_size=(32, 32)),
        *(
            saved("TIFF", i, compression=kind)
            for i, kind in enumerate(["raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate"])
        ),
        saved("TIFF", 11, "1", compression="group4"),
        saved("TIFF", 12, "CMYK", compression="packbits", exif=exif, icc_profile=icc),
        saved("TIFF", 13, save_all=True),
        *(saved("BMP", i, mode) for i, mode in enumerate(["RGB", "P"])),
    ]
    return (*jpegs * 2, *others)


_NUMBERS = (0, 1, 2, 7, 8, 255, 256, 4000, 32767, 32768, 65500, 65535, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(seed: int, number: int) -> bytes:
    """Return the input of this seed and number."""
    rng = random.Random(f"{seed} {number}")
    data = bytearray(rng.choice(originals()))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_MUTATIONS)(data, rng)
    if rng.random() < 0.8:
        _mend_png(data)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Choose a position, more often in the headers."""
    return rng.randrange(max(1, len(data) if rng.random() < 0.4 else min(len(data), 700)))


def _segments(data: bytearray, kinds: bytes = rb"[\xc0-\xfe]") -> list[tuple[int, int]]:
    """Find likely segments of a JPEG: the positions after their markers, and of their ends."""
    starts = [match.end() for match in re.finditer(rb"\xff" + kinds, data)][:50]
    return [(start, start + int.from_bytes(data[start : start + 2], "big")) for start in starts]


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 20)) if data else 0):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _fill(data: bytearray, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice((1, 4, 50))
    data[at : at + n] = rng.choice((b"\0" * n, b"\xff" * n, rng.randbytes(n)))


def _insert(data: bytearray, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice((1, 7, 300, 20_000))
    data[at:at] = rng.choice((b"\0" * n, b"\xff" * n, rng.randbytes(n)))


def _remove(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 30, 500))]


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(originals())
    data[_place(data, rng) :] = other[rng.randrange(len(other)) :]


def _set_number(data: bytearray, rng: random.Random) -> None:
    at, width, order = _place(data, rng), rng.choice((1, 2, 4)), rng.choice(("big", "little"))
    data[at : at + width] = (rng.choice(_NUMBERS) % 256**width).to_bytes(width, order)


def _set_size(data: bytearray, rng: random.Random) -> None:
    for start, _ in _segments(data, rb"[\xc0-\xc2]"):
        data[start + 3 : start + 7] = struct.pack(">HH", *(rng.choice(_NUMBERS[:12]) for _ in range(2)))


def _set_length(data: bytearray, rng: random.Random) -> None:
    if segments := _segments(data):
        start, end = rng.choice(segments)
        length = rng.choice((0, 1, 2, end - start - 1, end - start + 1, 65535)) % 65536
        data[start : start + 2] = length.to_bytes(2, "big")


def _set_table(data: bytearray, rng: random.Random) -> None:
    """Fill a table: of quantisation, of Huffman codes, or of scans."""
    if segments := _segments(data, rb"[\xc4\xda\xdb]"):
        start, end = rng.choice(segments)
        n = max(0, min(end, len(data)) - start - 2)
        data[start + 2 : start + 2 + n] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n)))


def _repeat_segment(data: bytearray, rng: random.Random) -> None:
    if segments := _segments(data):
        start, end = rng.choice(segments)
        data[start - 2 : start - 2] = data[start - 2 : end] * rng.choice((1, 2, 100))


def _mend_png(data: bytearray) -> None:
    """Correct the checksums of a PNG; otherwise decoders would reject it before they reach the damage."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 <= len(data):
            data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


_MUTATIONS = (
    *(_flip_bits, _fill, _insert, _remove, _truncate, _splice),
    *(_set_number, _set_number, _set_size, _set_length, _set_table, _repeat_segment),
)
