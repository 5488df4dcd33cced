"""Camera RAW files, written by hand: a DNG of a sensor with a colour filter array, with or without a preview."""

import io
import struct

import numpy as np
from PIL import Image

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 10: 8}  # bytes of a number, by the type of a TIFF
_LONG, _SHORT, _BYTE, _ASCII, _RATIONAL = 4, 3, 1, 2, 10
_XYZ_TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)


def _each(kind: int, tags: tuple[int, ...], values: list[list[int]]) -> dict:
    return {tag: (kind, numbers) for tag, numbers in zip(tags, values, strict=True)}


def dng(image: Image.Image, orientation: int = 1, preview: Image.Image | None = None) -> bytes:
    """Write an image as the pixels of a sensor, in linear light; the directory comes first."""
    rgb = np.asarray(image.convert("RGB"))[: image.height // 2 * 2, : image.width // 2 * 2]
    light = ((rgb / 255) ** 2.2 * 60000).astype("<u2")
    sensor = light[..., 1].copy()
    sensor[0::2, 0::2], sensor[1::2, 1::2] = light[0::2, 0::2, 0], light[1::2, 1::2, 2]
    height, width = sensor.shape
    camera = {
        271: (_ASCII, b"Fairphone\0"),
        272: (_ASCII, b"FP3\0"),
        274: (_SHORT, [orientation]),
        306: (_ASCII, b"2021:05:06 07:08:09\0"),
        50706: (_BYTE, bytes([1, 4, 0, 0])),
        50708: (_ASCII, b"Fairphone FP3\0"),
        50721: (_RATIONAL, _XYZ_TO_SRGB),
        50728: (_RATIONAL, (1, 1, 1)),
        50778: (_SHORT, [21]),
    }
    of_sensor = {
        **_each(_LONG, (254, 256, 257, 273, 278, 279), [[n] for n in (0, width, height, 0, height, sensor.nbytes)]),
        **_each(_SHORT, (258, 259, 262, 277), [[16], [1], [32803], [1]]),
        33421: (_SHORT, [2, 2]),
        33422: (_BYTE, bytes([0, 1, 1, 2])),
        50714: (_LONG, [0]),
        50717: (_LONG, [60000]),
    }
    if preview is None:
        return _file([{**of_sensor, **camera}], [sensor.tobytes()])
    jpeg = io.BytesIO()
    preview.save(jpeg, "JPEG", quality=90)
    longs = [[n] for n in (1, preview.width, preview.height, 0, preview.height, len(jpeg.getvalue()), 0)]
    of_preview = {
        **_each(_LONG, (254, 256, 257, 273, 278, 279, 330), longs),
        **_each(_SHORT, (258, 259, 262, 277), [[8, 8, 8], [7], [6], [3]]),
    }
    return _file([{**of_preview, **camera}, of_sensor], [jpeg.getvalue(), sensor.tobytes()])


def _file(directories: list[dict], strips: list[bytes]) -> bytes:
    """Write directories, of which the second is a sub-directory of the first, and then their strips."""
    lengths = [len(_directory(tags, 0)) for tags in directories]
    starts = [8 + sum(lengths[:number]) for number in range(len(directories))]
    at = 8 + sum(lengths)
    for tags, strip in zip(directories, strips, strict=True):
        tags[273] = (_LONG, [at])
        at += len(strip)
    if len(directories) > 1:
        directories[0][330] = (_LONG, [starts[1]])
    parts = [_directory(tags, start) for tags, start in zip(directories, starts, strict=True)]
    return b"".join([b"II*\0", struct.pack("<I", 8), *parts, *strips])


def _directory(tags: dict, start: int) -> bytes:
    head, values = struct.pack("<H", len(tags)), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        data = bytes(numbers) if kind in (_BYTE, _ASCII) else b"".join(_number(kind, number) for number in numbers)
        head += struct.pack("<HHI", tag, kind, len(data) // _SIZES[kind])
        if len(data) <= 4:
            head += data.ljust(4, b"\0")
        else:
            head += struct.pack("<I", start + 2 + 12 * len(tags) + 4 + len(values))
            values += data + bytes(len(data) % 2)
    return head + bytes(4) + values


def _number(kind: int, number: float) -> bytes:
    if kind == _RATIONAL:
        return struct.pack("<ii", round(number * 10000), 10000)
    return struct.pack("<I" if kind == _LONG else "<H", int(number))
