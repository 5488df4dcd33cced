"""PNG files: keep the chunks that the pixels depend on, and judge whether the pixels are whole.

Pillow fails at long texts and at a wrong checksum anywhere. Neither says anything about the pixels.

References
----------
PNG specification, third edition: chunks (5.3), their checksums (5.5).
"""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_OTHERS = (b"tRNS", b"iCCP", b"eXIf")  # dropped if their checksum is wrong
_EXIF_TEXT = b"Raw profile type exif\0"  # as ImageMagick wrote it before there was eXIf
_EXIF_BYTES = 2**16


def is_png(data: bytes) -> bool:
    """Tell whether a file begins as a PNG."""
    return data.startswith(_SIGNATURE)


def pixels_alone(data: bytes) -> bytes:
    """Return a PNG without texts, animation and broken extras.

    Raises
    ------
    ValueError
        If a checksum shows that pixels are wrong.
    """
    parts = [_SIGNATURE]
    is_doubtful = False
    for kind, body, checksum in _chunks(data):
        is_right = zlib.crc32(kind + body).to_bytes(4, "big") == checksum
        if kind in _PIXELS:
            is_doubtful |= not is_right and len(checksum) == 4
            # Pillow judges a chunk that is cut off by the rows in it.
            parts.append(_chunk(kind, body) if len(checksum) == 4 else data[-len(kind + body + checksum) - 4 :])
        elif (is_right and kind in _OTHERS) or _is_exif_text(kind, body):
            parts.append(_chunk(kind, body))
    if is_doubtful:
        _check_pixels(parts)
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield type, body and checksum of each chunk that matters; those of the last one may be cut off."""
    at = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND" and at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if kind in _PIXELS or kind in _OTHERS or kind in (b"zTXt", b"tEXt"):
            yield kind, data[at + 8 : end], data[end : end + 4]
        at = end + 4


def _is_exif_text(kind: bytes, body: bytes) -> bool:
    if not body.startswith(_EXIF_TEXT) or len(body) > _EXIF_BYTES:
        return False
    if kind == b"tEXt":
        return True
    try:
        inflater = zlib.decompressobj()
        inflater.decompress(body[len(_EXIF_TEXT) + 1 :], 4 * _EXIF_BYTES)
        return inflater.eof
    except zlib.error:
        return False


def _check_pixels(parts: list[bytes]) -> None:
    """Check the pixels by the checksum of their zlib stream, since that of a chunk is wrong."""
    width, height = struct.unpack_from(">II", parts[1].ljust(16, b"\0"), 8)
    most = 8 * width * height + 8 * height + 2**20  # 16-bit RGBA, and the filter of each row
    inflater = zlib.decompressobj()
    try:
        for part in parts:
            data = part[8:-4] if part[4:8] == b"IDAT" else b""
            while data and not inflater.eof and most > 0:
                most -= len(inflater.decompress(data, 2**20))
                data = inflater.unconsumed_tail
    except zlib.error:
        pass
    if not inflater.eof:
        raise ValueError("some of its pixels are wrong (the checksums do not match)")
