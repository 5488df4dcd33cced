"""Image formats that are decoded, and how much work a file may ask its decoder for.

A decoder allocates and loops by more headers than the size of the image. So each header that matters is a *demand*: the
number of pixels of an ordinary image that take as much memory or time. An image with a demand above the limit is
not decoded.
"""

import io
import re
import struct
from collections.abc import Iterator
from functools import cache

from PIL import AvifImagePlugin, Image, TiffImagePlugin

# Raster formats only: Pillow would hand an EPS file to Ghostscript.
_OF_PILLOW = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000")
FORMATS = (*_OF_PILLOW, "HEIC")
MAX_PIXELS = 2**28  # 268 megapixels, which decode into up to 4.3 GB; the largest phone cameras make 200
BYTES_PER_PIXEL = 8  # 16-bit RGBA, not compressed: no file needs more
_MOST_SEGMENTS = 256  # of each kind: a profile has at most 255, ICC.1:2022 B.4
BYTES_IN_MEMORY = 16  # for each pixel of an ordinary image, at the most

# Pillow's own guard counts pixels only, and warns below one limit and raises above another. The demands replace it.
Image.MAX_IMAGE_PIXELS = None
# Several photos are decoded at the same time; a thread for each core in every decoder would only cost memory.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# Brands of HEIC in an ISO base media file (ISO 14496-12, 23008-12); the last three also hold AVIF.
HEIC_START = rb"....ftyp(hei[cxms]|hev[cxms]|mif[12]|msf1)"

# A marker that begins a segment with a length, after whatever fills the space before it.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xda-\xfe]")
_METADATA = frozenset((*range(0xE0, 0xF0), 0xFE))  # APP0 to APP15, and comments
_NEEDED = (b"JFIF", b"Exif", b"ICC_", b"Adob", b"MPF\0")  # how they begin; they tell how to show the pixels
_MOST_FILLING = 2**10  # bytes
_START_OF_SCAN = 0xDA


def open_image(data: bytes) -> Image.Image:
    """Open an image file of one of `FORMATS`, whatever its name; its pixels are not decoded yet."""
    is_heic = (
        re.match(HEIC_START, data, re.DOTALL) is not None and b"avif" not in data[8 : int.from_bytes(data[:4], "big")]
    )
    if is_heic:
        _add_heic()
        formats = ["HEIF"]
    else:
        formats = ["JXL"] if is_jxl(data) and can_read_jxl() else [*_OF_PILLOW]
    return Image.open(io.BytesIO(data), formats=formats)


@cache
def _add_heic() -> None:
    """Teach Pillow HEIC. Its library takes as long to load as photos to decode, so only a HEIC file loads it."""
    import pillow_heif

    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


def is_jxl(data: bytes) -> bool:
    """Return whether a file begins as JPEG XL does, ISO 18181-2."""
    return data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))


@cache
def can_read_jxl() -> bool:
    """Teach Pillow JPEG XL; return whether the package for it is installed."""
    try:
        from pillow_jxl import JpegXLImagePlugin
    except ImportError:
        return False
    JpegXLImagePlugin.DECODE_THREADS = 0
    return True


def demands(image: Image.Image, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield what decoding a file takes, as a number of pixels and in words.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, not loaded.
    data : bytes
        The file.

    Yields
    ------
    n_pixels : int
        Pixels of an ordinary image that take as much: 16 bytes of memory or 30 nanoseconds each.
    description : str
    """
    width, height = image.size
    size = f"{width} x {height} pixels"
    yield width * height, size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # libtiff decodes whole tiles, however little the image needs
        tile_width, tile_height = (image.tag_v2.get(tag) for tag in (322, 323))
        if isinstance(tile_width, int) and isinstance(tile_height, int):
            yield tile_width * tile_height, f"tiles of {tile_width} x {tile_height} pixels"
    elif image.format in ("JPEG", "MPO"):  # each scan visits all pixels, and may take only 10 bytes of the file
        n_scans = len(re.findall(rb"\xff\xda\0", data))
        yield width * height * n_scans // 64, f"{n_scans} scans of {size}"
    elif image.format == "JPEG2000":  # OpenJPEG allocates 1 KB per component of a tile, and some KB per precinct
        for siz in re.finditer(rb"\xff\x4f\xff\x51", data):
            right, bottom, _, _, *tile, left, top, n_components = struct.unpack_from(">8IH", data, siz.end() + 4)
            n_tiles = min(-((left - right) // tile[0]) * -((top - bottom) // tile[1]), 2**16)
            yield n_tiles * (n_components + 5) * 64, f"{n_tiles} tiles of {n_components} components"
        yield width * height * 512 // (area := _smallest_block(data)), f"{size} in blocks of {area}"


def without_surplus(data: bytes) -> bytes:
    """Return a JPEG without surplus: metadata in more than 256 segments, and long fillings between segments.

    Pillow joins the segments of EXIF one by one, and looks for the next segment byte by byte: 12 MB took 199 s.

    Parameters
    ----------
    data : bytes
        A file of any format. All but JPEGs are returned unchanged, as are JPEGs without surplus.
    """
    if not data.startswith(b"\xff\xd8"):
        return data
    kept: list[bytes] = []
    begin, end = 0, 2  # of the span to keep next
    n_segments = dict.fromkeys((*_NEEDED, b""), 0)
    while found := _MARKER.search(data, end):
        start = found.end() - 2
        marker, stop = data[start + 1], found.end() + int.from_bytes(data[start + 2 : start + 4], "big")
        is_surplus = False
        if marker in _METADATA:
            kind = data[start + 4 : start + 8]
            kind = kind if kind in n_segments else b""
            n_segments[kind] += 1
            is_surplus = n_segments[kind] > _MOST_SEGMENTS
        if is_surplus or start - end > _MOST_FILLING:
            if end > begin:
                kept.append(data[begin:end])
            begin = stop if is_surplus else start
        if marker == _START_OF_SCAN:
            break
        end = stop
    return b"".join([*kept, data[begin:]]) if begin else data


def _smallest_block(data: bytes) -> int:
    """Return the area in pixels of the smallest code-block or precinct in a JPEG 2000 file, at most 512."""
    area = 512
    for marker in re.finditer(rb"\xff[\x52\x53]\0", data):  # COD and COC, ISO 15444-1 A.6, or a chance match
        start = marker.start()
        style, levels = (start + 4, start + 9) if data[start + 1] == 0x52 else (start + 5, start + 6)
        block = data[levels : start + 2 + data[start + 3]] if start + 3 < len(data) else b""
        if len(block) >= 5 and len(block) == 5 + (data[style] & 1) * (block[0] + 1):
            area = min(area, 16 << block[1] + block[2], *(1 << (side & 15) + (side >> 4) for side in block[5:]))
    return area
