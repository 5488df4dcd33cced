"""Hostile image files: `BAD` ones with the reason of their failure, and unusual but valid `STRANGE` ones.

The strange ones show red on the left and blue on the right, 64 x 48 pixels.
"""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, ImageCms

HALVES = Image.new("RGB", (64, 48), (250, 0, 0))
HALVES.paste((0, 0, 250), (32, 0, 64, 48))
GREEN = Image.new("RGB", (64, 48), (0, 250, 0))


def saved(image: Image.Image = HALVES, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def changed(data: bytes, at: int, numbers: str, *values: int) -> bytes:
    """Overwrite numbers of a header; `numbers` is a format of struct."""
    return data[:at] + struct.pack(numbers, *values) + data[at + struct.calcsize(numbers) :]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes, data: bytes = b"") -> bytes:
    data = data or saved()
    return data[:2] + b"".join(segments) + data[2:]


def jpeg_of(width: int, height: int, **options: object) -> bytes:
    """A JPEG whose header claims wrong dimensions."""
    data = saved(**options)
    start = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    return changed(data, start + 5, ">HH", height, width)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunk: bytes) -> bytes:
    data = saved(kind="PNG")
    return data[:33] + chunk + data[33:]


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be black and white and of these sides, with few pixels in it."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A TIFF of 16 x 16 grey pixels, compressed by zlib, with more tags, and the data after them."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, **tags}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


def tile_bomb() -> bytes:
    """16 x 16 pixels in a tile of 20,000 x 20,000."""
    data = zlib.compress(bytes(10**6))
    start = 8 + 2 + 10 * 12 + 4
    return tiff({322: 20_000, 323: 20_000, 324: start, 325: len(data)}, data)


def jpeg2000_of(tile: int, n_components: int) -> bytes:
    """255 x 255 pixels in tiles of the given side; a box hides this from readers of the usual position."""
    data = saved(Image.new("RGB", (255, 255)), "JPEG2000")
    start = data.index(b"\xff\x4f\xff\x51")
    length = int.from_bytes(data[start + 4 : start + 6], "big")
    sides = struct.pack(">8I", 255, 255, 0, 0, tile, tile, 0, 0)
    size = struct.pack(">HH", 38 + 3 * n_components, 0) + sides + struct.pack(">H", n_components)
    rest = b"\xff\x4f\xff\x51" + size + b"\7\1\1" * n_components + data[start + 4 + length :]
    return data[: start - 8] + struct.pack(">I4s4x", 12, b"free") + struct.pack(">I4s", 0, b"jp2c") + rest


def jpeg2000_in_single_pixels() -> bytes:
    """Each pixel is a precinct of its own, for which OpenJPEG allocates several KB."""
    data = saved(Image.new("RGB", (1024, 1024)), "JPEG2000", precinct_size=(128, 128))
    start = data.index(b"\xff\x52")
    return changed(data, start + 14, f"{data[start + 9] + 1}x")


def webp_of(width: int, height: int) -> bytes:
    """An animation with small frames and a large canvas."""
    data = saved(kind="WEBP", save_all=True, append_images=[GREEN])
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return changed(data, data.index(b"VP8X") + 12, "6s", sides)


def gif_with_large_frame() -> bytes:
    data = saved(kind="GIF")
    return changed(data, data.index(b"\x2c") + 5, "<HH", 65_000, 65_000)


def exif(*tags: tuple[int, int, int, int], after: int = 0) -> bytes:
    """EXIF of one directory: tag, type, count and value of each, and where the next one is."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", after)


_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_SCAN = saved(progressive=True)
_SCANS = jpeg_of(16_000, 16_000, progressive=True)

BAD: dict[str, tuple[bytes, str]] = {
    "a PNG of 60,000 x 60,000 pixels": (png_of(60_000, 60_000), "too large"),
    "a JPEG that claims 65,500 x 65,500 pixels": (jpeg_of(65_500, 65_500), "too large"),
    "a progressive JPEG of a thousand scans": (_SCANS[:-2] + _SCAN[_SCAN.index(b"\xff\xda") : -2] * 100, "too large"),
    "a GIF whose frame is larger than its canvas": (gif_with_large_frame(), "too large"),
    "a WebP with a canvas of 20,000 x 20,000 pixels": (webp_of(20_000, 20_000), "too large"),
    "a TIFF in tiles much larger than itself": (tile_bomb(), "too large"),
    "a JPEG 2000 of 200 components in 65,025 tiles": (jpeg2000_of(1, 200), "too large"),
    "a JPEG 2000 in precincts of one pixel": (jpeg2000_in_single_pixels(), "too large"),
    "a JPEG of no width": (jpeg_of(0, 16), "not an image"),
    "a JPEG of no height": (jpeg_of(16, 0), "not an image"),
    "a PNG of no width": (png_of(0, 16), "not an image"),
    "a JPEG of four times its height": (jpeg_of(64, 48 * 4)[:-2], "damaged"),
    "a JPEG that ends in its header": (saved()[:100], "damaged"),
    "a JPEG that ends in its pixels": (saved()[:-30], "damaged"),
    "a JPEG with a segment of 65,535 bytes": (changed(saved(), 4, ">H", 65_535), "damaged"),
    "a JPEG of bad tables": (changed(saved(), saved().index(b"\xff\xc4") + 5, "4B", 255, 255, 255, 255), "damaged"),
    "a JPEG of sixteen bits": (changed(saved(), saved().index(b"\xff\xc0") + 4, "B", 16), "not an image"),
    "a JPEG of nine components": (changed(saved(), saved().index(b"\xff\xc0") + 9, "B", 9), "not an image"),
}

STRANGE: dict[str, bytes] = {
    "an animated GIF": saved(kind="GIF", save_all=True, append_images=[GREEN]),
    "an animated PNG": saved(kind="PNG", save_all=True, append_images=[GREEN]),
    "an animated WebP": saved(kind="WEBP", save_all=True, append_images=[GREEN], lossless=True),
    "a TIFF of two pages": saved(kind="TIFF", save_all=True, append_images=[GREEN]),
    "a JPEG of two pictures": saved(kind="MPO", save_all=True, append_images=[GREEN], quality=95),
    "a CMYK JPEG, inverted as Adobe has it": saved(HALVES.convert("CMYK"), quality=95),
    "a JPEG without Huffman tables, which are then the standard ones": jpeg_of(64, 48, quality=95).replace(
        b"\xff\xc4", b"\xff\xe9"
    ),
    "a progressive JPEG": saved(progressive=True, quality=95),
    "a PNG with a text of 99 MB": png_with(png_chunk(b"zTXt", b"text\0\0" + zlib.compress(bytes(99_000_000), 9))),
    "a PNG with a hundred texts of 1 MB": png_with(
        b"".join(png_chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(10**6), 9)) for i in range(100))
    ),
    "a PNG with a palette": saved(HALVES.quantize(4), "PNG"),
    "a PNG with a palette and transparency": saved(HALVES.quantize(4), "PNG", transparency=b"\xff" * 3),
    "a JPEG with a profile": saved(icc_profile=_ICC, quality=95),
    "a JPEG with a broken profile": saved(icc_profile=_ICC[:99] + b"\xff" * 99, quality=95),
    "a PNG with a broken profile": png_with(png_chunk(b"iCCP", b"name\0\0no zlib")),
    "a JPEG whose EXIF refers to itself": jpeg_with(
        segment(0xE1, exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), after=8))
    ),
    "a JPEG whose EXIF refers to nowhere": jpeg_with(segment(0xE1, exif((0x8769, 4, 1, 2**32 - 1)))),
    "a JPEG with an orientation that does not exist": jpeg_with(segment(0xE1, exif((0x0112, 3, 1, 9)))),
    "a JPEG with an orientation in words": jpeg_with(segment(0xE1, exif((0x0112, 2, 4, 0x00707574)))),
    "a JPEG with a time of no calendar": jpeg_with(segment(0xE1, exif((0x0132, 2, 4, 0x00393939)))),
    "a JPEG whose EXIF is garbage": jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(range(256)))),
    "a PNG whose EXIF is garbage": png_with(png_chunk(b"eXIf", b"garbage!")),
    "a JPEG with garbage after its end": saved(quality=95) + bytes(range(256)) * 99,
    "a JPEG in which a segment comes twice": jpeg_with(saved()[2:20], data=saved(quality=95)),
}


def _many(part: bytes, n_bytes: int = 12_000_000) -> bytes:
    return part * (n_bytes // len(part))


def _png_before(kind: bytes, chunks: bytes) -> bytes:
    data = saved(kind="PNG")
    start = data.index(kind) - 4
    return data[:start] + chunks + data[start:]


def _gif_with(extension: bytes) -> bytes:
    data = saved(kind="GIF")
    start = data.index(b"\x2c")
    return data[:start] + extension + data[start:]


def _bmp_of(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 256 greys, compressed by run lengths."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


# Files that would hold up a decoder, as functions, because they are large.
SLOW: dict[str, Callable[[], bytes]] = {
    "a JPEG of EXIF in tiny segments": lambda: jpeg_with(_many(segment(0xE1, b"Exif\0\0abcd"))),
    "a JPEG of profiles in tiny segments": lambda: jpeg_with(_many(segment(0xE2, b"ICC_PROFILE\0\1\1"))),
    "a JPEG of empty comments": lambda: jpeg_with(_many(segment(0xFE, b""))),
    "a JPEG of quantisation tables": lambda: jpeg_with(_many(segment(0xDB, b"\0" + b"\1" * 64))),
    "a JPEG of filling": lambda: jpeg_with(_many(b"\xff")),
    "a PNG of empty chunks": lambda: png_with(_many(png_chunk(b"prVt", b""))),
    "a PNG of tiny texts": lambda: png_with(_many(png_chunk(b"tEXt", b"a\0b"))),
    "a PNG of empty pieces of pixels": lambda: _png_before(b"IDAT", _many(png_chunk(b"IDAT", b""), 30_000_000)),
    "a GIF of tiny comments": lambda: _gif_with(_many(b"\x21\xfe\1a\0", 30_000_000)),
    "a GIF of a comment in single bytes": lambda: _gif_with(b"\x21\xfe" + _many(b"\1a", 30_000_000) + b"\0"),
    "a BMP of runs of one pixel": lambda: _bmp_of(16_000, 16_000, _many(b"\1\1")),
    "a BMP of ends of lines": lambda: _bmp_of(16_000, 16_000, _many(b"\0\0", 60_000_000)),
}
