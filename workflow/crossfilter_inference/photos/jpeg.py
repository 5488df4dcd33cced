"""JPEG files: decode their pixels, and judge whether all of them are there.

libjpeg fills what it cannot decode with grey and only warns; Pillow hides the warnings. simplejpeg decodes to the same
pixels and raises them. A file that causes a warning is decoded again without what holds no pixels: metadata, garbage
between segments, and padding at the end of a scan. If no warning is left, all pixels are there. This also holds for a
file without an end marker.

Codes that replace others may be decoded without a warning. But the mean of each block is coded as its difference to the
block before. So all blocks behind such damage are off by one amount, which shows as a step between two rows of blocks.
A file with such a step is decoded again, with less contrast: means beyond black or white prove the damage.

References
----------
ITU-T T.81: segments (B.1), frame headers (B.2.2), scan headers (B.2.3), quantisation tables (B.2.4.1), differences of
means (F.1.1.5.1), progressive scans (G.1).
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

_Pixels = npt.NDArray[np.uint8]  # of shape (height, width, channels)

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_JFIF, _ADOBE, _QUANTISATION, _SOS = 0xE0, 0xEE, 0xDB, 0xDA
_TABLES = (0xC4, 0xCC, 0xDB, 0xDD)  # of Huffman codes, arithmetic coding, quantisation; restart interval
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _LAST_HUFFMAN = (0xC2, 0xC6, 0xCA, 0xCE), 0xC7
# Without filling bytes before them: an expression for a run of bytes takes quadratic time for a long one.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # restart markers belong to the scan
_COLOURS = {"L": "GRAY", "RGB": "RGBX", "CMYK": "CMYK"}  # Pillow, too, stores RGB with a fourth byte
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
    try:
        pixels = _whole(data, mode, least)
    except _UnknownSubsampling:  # rare: 4:1:0 and the like, which only Pillow decodes, without a warning
        return Image.open(io.BytesIO(data), formats=["JPEG"]).convert(mode)
    if _has_step(pixels[:, :, :3] if mode == "RGB" else pixels, data) and _exceeds_range(data):
        raise ValueError("some of its pixels are wrong (darker than black or brighter than white)")
    if mode == "RGB":
        return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", "RGBX")
    if mode == "CMYK":
        pixels = 255 - pixels  # stored inverted, as Adobe does and Pillow assumes
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode)


class _UnknownSubsampling(ValueError):
    """simplejpeg does not know how the colours of this file are subsampled."""


def _whole(data: bytes, mode: str, least: tuple[int, int]) -> _Pixels:
    """Decode a JPEG if no warning matters."""
    warning = ""
    try:
        pixels = _strictly(data, mode, least)
        if _has_all_scans(data):
            return pixels
    except ValueError as error:
        warning = str(error)
        if "subsampling" in warning:
            raise _UnknownSubsampling from None
    frame = _Frame()
    segments = list(frame.read(data))
    may_repair = frame.is_complete and (frame.has_end or not frame.is_arithmetic) and not _has_hole(segments)
    for candidate in _candidates(segments) if may_repair else ():
        try:
            return _strictly(candidate, mode, least)
        except ValueError as error:
            if (few := _EXTRANEOUS.search(str(error))) and int(few[1]) <= _FEW_BYTES:
                return _strictly(candidate, mode, least, strict=False)
    raise ValueError(_describe(frame, segments, warning))


def _has_all_scans(data: bytes) -> bool:
    """Check the scan headers, and coded data that look as if they were overwritten.

    Most files have one scan, which need not be searched for its end.
    """
    frame = _Frame()
    for _ in frame.read(data):
        if frame.is_complete:
            break
    else:
        return False
    return not (_may_have_hole(data, frame.scan_start) and _has_hole(list(_Frame().read(data))))


# Zeros are codes, too, but in a row they mean blocks of 63 equal coefficients, unless the shortest code is the end of a
# block. Ones would be a marker.
_ZEROS = bytes(128)
_ONES = b"\xff\xff\0"
_END_OF_BLOCK = 0


def _may_have_hole(data: bytes, start: int) -> bool:
    """Look for _ZEROS, and for two bytes of ones, for which `bytes.find` takes ten times as long."""
    coded = np.frombuffer(data, np.uint8)[start:]
    return data.find(_ZEROS, start) >= 0 or bool(np.minimum(coded[1:], coded[:-1]).max(initial=0) == 0xFF)


def _has_hole(segments: "list[_Segment | _Scan]") -> bool:
    """Check for coded data that no encoder writes, though libjpeg decodes them without a warning."""
    scans = [part for part in segments if isinstance(part, _Scan)]
    if any(scan.find(_ONES) >= 0 for scan in scans):
        return True
    zeros_are_flat = len(scans) > 1 or not any(
        shortest != _END_OF_BLOCK for part in segments for shortest in _shortest_codes(part)
    )
    return not zeros_are_flat and any(_ZEROS in scan.rstrip(b"\0") for scan in scans)


def _shortest_codes(part: "_Segment | _Scan") -> Iterator[int]:
    """Yield the symbol of the shortest code, which is of zeros alone, of each table of AC coefficients in a segment."""
    at = 4
    while part.startswith(b"\xff\xc4") and isinstance(part, _Segment) and at + 17 < len(part):
        if part[at] >> 4:
            yield part[at + 17]
        at += 17 + sum(part[at + 1 : at + 17])


def _strictly(data: bytes, mode: str, least: tuple[int, int], *, strict: bool = True) -> _Pixels:
    import simplejpeg  # only the environment of the embedding job has it

    width, height = least
    pixels: _Pixels = simplejpeg.decode_jpeg(data, _COLOURS[mode], min_width=width, min_height=height, strict=strict)
    return pixels


_N_COLUMNS = 64  # that are looked at, or up to twice as many
# Of 255. 96% of the damaged photos that are decoded without a warning have such a step.
_STEP, _CLIPPED = 20, 0.25
_MOST_BESIDE = 0.5  # of a step, in the next rows


def _has_step(pixels: _Pixels, data: bytes) -> bool:
    """Check for a step of brightness or colour between two rows of blocks.

    Damage ends in the middle of a row. So the step is above the rest of that row, and below its beginning. Edges of the
    picture itself are less sharp, or are not between two rows of blocks.
    """
    height, row_height = _heights(data)
    row_height = max(1, row_height * len(pixels) // height)
    columns = pixels[:, :: max(1, pixels.shape[1] // _N_COLUMNS)]
    below = columns[row_height::row_height].astype(np.int16)
    above = columns[row_height - 1 :: row_height][: len(below)]
    steps = _means(below - above)
    least, largest = _STEP, steps.max(initial=0)
    if largest <= _STEP:  # pixels that are clipped to black and white hide a step
        if largest <= _STEP / 2 or ((below == 0) | (below == 255)).mean(axis=(0, 1)).max() <= _CLIPPED:
            return False
        least = _STEP // 2
    rows = columns.astype(np.int16)
    differences = np.pad(rows[1:] - rows[:-1], ((1, 1), (0, 0), (0, 0)))
    beside = [_means(differences[row_height + side :: row_height][: len(below)]) for side in (-1, 1)]
    return bool(((steps > least) & (np.maximum(*beside) < _MOST_BESIDE * steps)).any())


def _means(differences: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Return the absolute means over a row's length, from each column on into the next row of blocks."""
    n_columns, n_channels = differences.shape[1:]
    sums = np.cumsum(differences.reshape(-1, n_channels), axis=0, dtype=np.int32)
    means: npt.NDArray[np.float64] = np.abs(sums[n_columns:] - sums[:-n_columns]) / n_columns
    return means


def _heights(data: bytes) -> tuple[int, int]:
    """Return the height of a JPEG, and of its rows of blocks, in pixels."""
    frame = next(part for part in _Frame().read(data) if part[1] in _FRAMES)
    return int.from_bytes(frame[5:7], "big"), 8 * max(sampling & 15 for sampling in frame[11::3])


def _exceeds_range(data: bytes) -> bool:
    """Check for blocks whose mean is beyond black or white, in any component.

    Without the other coefficients, and with the quantisation step of the means halved, the decoder does not clip them.
    A step of 1 cannot be halved, so the best qualities are not checked.
    """
    kept = [_SOI, _segment(_ADOBE, b"Adobe" + bytes(7))]  # the components as they are
    numbers = b""  # of the table of each component
    limits: dict[int, float] = {}
    for part in _Frame().read(data):
        if isinstance(part, _Segment) and part[1] == _QUANTISATION:
            part, found = _of_means(part)
            limits |= found
        if isinstance(part, _Segment) and part[1] in _FRAMES:
            numbers = part[12::3]
        if isinstance(part, _Scan) or part[1] not in (_JFIF, _ADOBE):
            kept.append(part)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(numbers)]
    means = _strictly(b"".join([*kept, _EOI]), mode, (1, 1), strict=False)[:, :, : len(numbers)].astype(float)
    return bool((np.abs(means - 128) > [limits[number] for number in numbers]).any())


def _of_means(tables: "_Segment") -> tuple["_Segment", dict[int, float]]:
    """Change quantisation tables so that the means alone are decoded, halved. Return their limits by table, too."""
    changed = bytearray(tables)
    limits = {}
    at = 4
    while at < len(changed):
        n_bytes, number = 1 + (changed[at] >> 4), changed[at] & 15
        step = max(1, int.from_bytes(changed[at + 1 : at + 1 + n_bytes], "big"))
        halved = max(1, step // 2)
        changed[at + 1 : at + 1 + 64 * n_bytes] = halved.to_bytes(n_bytes, "big") + bytes(63 * n_bytes)
        # A coefficient is 8 times a mean, so at most 1024 / step; some encoders round it away from 0.
        limits[number] = (1024 / step + 1) * halved / 8 + 1
        at += 1 + 64 * n_bytes
    return _Segment(changed), limits


class _Segment(bytes):
    """A segment that pixels depend on, from its marker on."""


class _Scan(bytes):
    """The coded data after a scan header."""


@dataclass
class _Frame:
    """The frame header, and which bits of which coefficients the scans so far have brought.

    Attributes
    ----------
    is_progressive, is_arithmetic : bool
        The decoder of arithmetic codes never warns, so that a file that lacks its end cannot be judged.
    has_end : bool
        Whether a marker follows the last scan.
    scan_start : int
        Where the coded data of the last scan begin.
    missing_bits : dict
        By component, an array of shape (64,): the number of low bits that each coefficient lacks; -1 if it lacks all.
    """

    is_progressive: bool = False
    is_arithmetic: bool = False
    has_end: bool = False
    scan_start: int = 0
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
                self.scan_start = at
                yield _segment(code, self._add_scan(body))
                end = _SCAN_END.search(data, at)
                self.has_end = end is not None
                scan = _Scan(data[at : end.start() if end else len(data)].rstrip(b"\xff"))
                at += len(scan)
                yield scan
            elif code in _TABLES:
                yield _segment(code, body)
            elif code in _FRAMES:
                self.is_progressive, self.is_arithmetic = code in _PROGRESSIVE, code > _LAST_HUFFMAN
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
    for unpadded in (_as_it_is, _without_zeros, _with_one_zero, _without_ones):
        yield _SOI + b"".join(unpadded(part) if isinstance(part, _Scan) else part for part in segments) + _EOI


def _as_it_is(scan: bytes) -> bytes:
    return scan


def _without_zeros(scan: bytes) -> bytes:
    stripped = scan.rstrip(b"\0")
    return stripped + b"\0" if stripped.endswith(b"\xff") and stripped != scan else stripped


def _with_one_zero(scan: bytes) -> bytes:
    """Keep one zero, since the last byte of the data themselves may be one."""
    stripped = scan.rstrip(b"\0")
    return stripped + b"\0" if stripped != scan else scan


def _without_ones(scan: bytes) -> bytes:
    return scan.rstrip(b"\xff\0")


def _describe(frame: _Frame, segments: list[_Segment | _Scan], warning: str) -> str:
    """Say how much of a damaged JPEG is there."""
    reason = f" ({warning})" if warning else ""
    if not any(isinstance(part, _Scan) for part in segments):
        return f"none of its pixels can be decoded{reason}"
    if not frame.is_complete:
        return f"about {frame.share:.0%} of its detail can be decoded; the scans with the rest are missing{reason}"
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
    import simplejpeg

    cut = _SOI + b"".join(part[:before] if isinstance(part, _Scan) else part for part in segments) + _EOI
    try:
        blocks = simplejpeg.decode_jpeg(cut, "GRAY", min_width=1, min_height=1, strict=False).ravel()
    except ValueError:
        return 0.0
    filled = blocks == _FILL
    return 1 - float(np.argmin(filled[::-1]) if not filled.all() else len(filled)) / len(filled)


_FILL = 128  # libjpeg's grey for blocks that it cannot decode
