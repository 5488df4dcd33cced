"""JPEG files: decode their pixels, and judge whether all of them are there.

libjpeg fills what it cannot decode with grey and only warns; Pillow hides the warnings. simplejpeg decodes to the same
pixels and raises them. A file that causes a warning is decoded again without what holds no pixels: metadata, garbage
between segments, and padding at the end of a scan. If no warning is left, all pixels are there. This also holds for a
file without an end marker.

References
----------
ITU-T T.81: segments (B.1), scan headers (B.2.3), progressive scans (G.1).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from PIL import Image

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_JFIF, _ADOBE, _SOS = 0xE0, 0xEE, 0xDA
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)  # of Huffman codes, arithmetic coding, quantisation; restart interval
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # restart markers belong to the scan
_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
# Bytes left over at the end of a scan that is whole: some encoders flush a byte too many. Of scans with an error, one
# in some hundred leaves as few.
_FEW_BYTES = 2
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def decode_jpeg(data: bytes, mode: str, least: tuple[int, int]) -> Image.Image:
    """Decode a JPEG; of several pictures in one file, the first.

    Parameters
    ----------
    data : bytes
        The file.
    mode : {"L", "RGB", "CMYK"}
        Pillow's mode for the file.
    least : tuple of int
        Width and height that the decoded image has at least. libjpeg scales by eighths.

    Raises
    ------
    ValueError
        If pixels are missing or wrong, with the part that is there.
    """
    warning = ""
    try:
        image = _strictly(data, mode, least)
        if _has_all_scans(data):
            return image
    except ValueError as error:
        warning = str(error)
    frame = _Frame()
    segments = list(frame.read(data))
    if frame.is_complete:
        for candidate in _candidates(segments):
            try:
                return _strictly(candidate, mode, least)
            except ValueError as error:
                if (few := _EXTRANEOUS.search(str(error))) and int(few[1]) <= _FEW_BYTES:
                    return _strictly(candidate, mode, least, strict=False)
    raise ValueError(_describe(frame, segments, warning))


def _has_all_scans(data: bytes) -> bool:
    """Check the scan headers; the first one of most files tells that no other has to come."""
    frame = _Frame()
    return any(frame.is_complete for _ in frame.read(data))


def _strictly(data: bytes, mode: str, least: tuple[int, int], *, strict: bool = True) -> Image.Image:
    width, height = least
    pixels = simplejpeg.decode_jpeg(data, _COLOURS[mode], min_width=width, min_height=height, strict=strict)
    if mode == "CMYK":
        pixels = 255 - pixels  # stored inverted, as Adobe does and Pillow assumes
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode)


class _Segment(bytes):
    """A segment that pixels depend on, from its marker on."""


class _Scan(bytes):
    """The coded data after a scan header."""


@dataclass
class _Frame:
    """The frame header, and which bits of which coefficients the scans so far have brought.

    Attributes
    ----------
    missing_bits : dict
        By component, an array of shape (64,): the number of low bits that each coefficient lacks; -1 if it lacks all.
    """

    is_progressive: bool = False
    missing_bits: dict[int, "np.ndarray[tuple[int], np.dtype[np.int8]]"] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the coefficients that are complete."""
        return float(np.mean([bits == 0 for bits in self.missing_bits.values()])) if self.missing_bits else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether scans for all coefficients have come."""
        return self.share == 1

    def read(self, data: bytes) -> Iterator[_Segment | _Scan]:
        """Yield the segments that the pixels depend on, up to the end marker or the scan that completes the frame."""
        at = 2
        while not self.is_complete and (marker := _MARKER.search(data, at)):
            code, at = data[marker.end() - 1], marker.end()
            if code == _EOI[1]:
                return
            if code == 1 or 0xD0 <= code <= 0xD8:  # have no length
                continue
            length = int.from_bytes(data[at : at + 2], "big")
            body, at = data[at + 2 : at + length], at + length
            if code == _SOS:
                yield _segment(code, self._add_scan(body))
                end = _SCAN_END.search(data, at)
                scan = _Scan(data[at : end.start() if end else len(data)])
                at += len(scan)
                yield scan
            elif code in _TABLES:
                yield _segment(code, body)
            elif code in _FRAMES:
                self.is_progressive = code in _PROGRESSIVE
                self.missing_bits = {component: np.full(64, -1, np.int8) for component in body[6::3]}
                yield _segment(code, body)
            elif code == _JFIF and body.startswith(b"JFIF\0"):  # which says that the colours are YCbCr
                yield _segment(code, body[:5] + b"\1\1" + body[7:])
            elif code == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
                transform = body[11] if body[11] <= 2 else max(1, len(self.missing_bits) - 2)
                yield _segment(code, body[:11] + bytes([transform]))

    def _add_scan(self, header: bytes) -> bytes:
        """Note what a scan brings. Return its header, with the values of a sequential scan where it is one."""
        n = header[0] if header else 0
        components, rest = header[1 : 1 + 2 * n : 2], header[1 + 2 * n :]
        first, last, bits = rest[:3] if self.is_progressive and len(rest) >= 3 else (0, 63, 0)
        for component in components:
            if component in self.missing_bits:
                self.missing_bits[component][first : last + 1] = bits & 15
        return header[: 1 + 2 * n] + bytes([first, last, bits])


def _segment(code: int, body: bytes) -> _Segment:
    return _Segment(bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body)


def _candidates(segments: list[_Segment | _Scan]) -> Iterator[bytes]:
    """Yield files of these segments alone: with the scans as they are, and without their padding."""
    for unpadded in (_as_it_is, _without_zeros, _without_ones):
        yield _SOI + b"".join(unpadded(part) if isinstance(part, _Scan) else part for part in segments) + _EOI


def _as_it_is(scan: bytes) -> bytes:
    return scan


def _without_zeros(scan: bytes) -> bytes:
    stripped = scan.rstrip(b"\0")
    return stripped + b"\0" if stripped.endswith(b"\xff") and stripped != scan else stripped


def _without_ones(scan: bytes) -> bytes:
    return re.sub(rb"(\xff\0|\xff|\0)+\Z", b"", scan)


def _describe(frame: _Frame, segments: list[_Segment | _Scan], warning: str) -> str:
    """Say how much of a damaged JPEG is there."""
    reason = f" ({warning})" if warning else ""
    if not any(isinstance(part, _Scan) for part in segments):
        return f"none of its pixels can be decoded{reason}"
    if not frame.is_complete:
        return f"about {frame.share:.0%} of its detail can be decoded, the scans with the rest are missing{reason}"
    share = _share_before_hole(segments)
    if share == 1:
        return f"some of its pixels are wrong{reason}"
    one_scan = sum(isinstance(part, _Scan) for part in segments) == 1
    return f"about {share:.0%} of its {'pixels' if one_scan else 'detail'} can be decoded{reason}"


# Where coded data are lost: equal bytes in a row, which the data of a picture hardly have.
_HOLE = re.compile(rb"(.)\1{31}", re.DOTALL)


def _share_before_hole(segments: list[_Segment | _Scan]) -> float:
    """Estimate the share of a picture before the first hole in its coded data."""
    scans = [part for part in segments if isinstance(part, _Scan)]
    before = 0
    for scan in scans:
        hole = _HOLE.search(scan)
        before += hole.start() if hole else len(scan)
        if hole:
            break
    if len(scans) > 1:
        return before / max(1, sum(map(len, scans)))
    cut = _SOI + b"".join(part[:before] if isinstance(part, _Scan) else part for part in segments) + _EOI
    try:
        blocks = simplejpeg.decode_jpeg(cut, "GRAY", min_width=1, min_height=1, strict=False).ravel()
    except ValueError:
        return 0.0
    filled = blocks == _FILL
    return 1 - float(np.argmin(filled[::-1]) if not filled.all() else len(filled)) / len(filled)


_FILL = 128  # libjpeg's grey for blocks that it cannot decode
