"""Find overwritten parts of HEIC files, which libheif decodes without an error.

Coded images never hold three zero bytes in a row (ITU-T H.265, 7.4.1), so many zeros are a part that was never written,
as an interrupted download or a failing disk leaves it.
"""

import re
import struct
from collections.abc import Iterator

_ZEROS = re.compile(rb"\0{32,}")
_CODED = b"hvc1"


def zeroed_bytes(data: bytes) -> int:
    """Return how many bytes of the coded images are in long runs of zeros; 0 if the boxes cannot be read.

    Parameters
    ----------
    data : bytes
        A HEIC file (ISO 23008-12).
    """
    try:
        return sum(len(zeros) for part in _coded_parts(data) for zeros in _ZEROS.findall(part))
    except (struct.error, LookupError):
        return 0


def _coded_parts(data: bytes) -> Iterator[bytes]:
    """Yield the extents of all coded images."""
    boxes = dict(_boxes(dict(_boxes(data))[b"meta"][4:]))
    coded = {number for number, kind in _items(boxes[b"iinf"]) if kind == _CODED}
    for number, offset, length in _extents(boxes[b"iloc"]):
        if number in coded:
            yield data[offset : offset + length]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            [size] = struct.unpack_from(">Q", data, start)
            start += 8
        end = at + size if size else len(data)
        if end < start:
            return
        yield kind, data[start:end]
        at = end


def _items(iinf: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, content in _boxes(iinf[6 if iinf[0] == 0 else 8 :]):
        if kind == b"infe" and content[0] >= 2:
            number, _, item = struct.unpack_from(">HH4s" if content[0] == 2 else ">IH4s", content, 4)
            yield number, item


def _extents(iloc: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield item, position in the file and length of every extent that lies in the file itself."""
    version, at = iloc[0], 6
    sizes = [iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0]
    if not sizes[0] + sizes[1]:  # extents of no bytes would be without end
        return

    def number(n_bytes: int) -> int:
        nonlocal at
        at += n_bytes
        if at > len(iloc):
            raise IndexError
        return int.from_bytes(iloc[at - n_bytes : at], "big")

    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(sizes[2])
        for _ in range(number(2)):
            number(sizes[3])
            offset, length = number(sizes[0]), number(sizes[1])
            if method == 0:
                yield item, base + offset, length
