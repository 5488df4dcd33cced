"""Names of file formats that are not decoded, recognised by their first bytes, with what to do about each."""

import io
import re

from PIL import TiffImagePlugin

from .formats import HEIC_START

_CONVERT = "convert it to JPEG"
_RAW = "run pip install 'crossfilter-inference[raw]', or export it as JPEG with a raw converter, such as darktable"
_JXL = f"run pip install 'crossfilter-inference[jxl]', or {_CONVERT}, for example with djxl"

# Of equal beginnings, the longer one comes first.
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\x0a", "JPEG XL", _JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", _JXL),
    (b"FUJIFILMCCD-RAW", "Fujifilm RAF, a camera's raw format", _RAW),
    (b"IIRO", "Olympus ORF, a camera's raw format", _RAW),
    (b"IIRS", "Olympus ORF, a camera's raw format", _RAW),
    (b"MMOR", "Olympus ORF, a camera's raw format", _RAW),
    (b"II*\0\x10\0\0\0CR", "Canon CR2, a camera's raw format", _RAW),
    (b"IIU\0", "Panasonic RW2, a camera's raw format", _RAW),
    (b"FOVb", "Sigma X3F, a camera's raw format", _RAW),
    (b"\0MRM", "Minolta MRW, a camera's raw format", _RAW),
    (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW, a camera's raw format", _RAW),
    (b"II\xbc\x01", "JPEG XR", _CONVERT),
    (b"8BPS", "Photoshop document (PSD)", f"{_CONVERT}, for example with ImageMagick"),
    (b"gimp xcf", "GIMP document (XCF)", f"{_CONVERT} with GIMP"),
    (b"%PDF", "PDF document", "extract its pictures, for example with pdfimages"),
    (b"%!PS", "PostScript document", _CONVERT),
    (b"PK\x03\x04", "ZIP archive", "unpack it"),
    (b"Rar!\x1a\x07", "RAR archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive", "unpack it"),
    (b"\x1f\x8b", "gzip archive", "unpack it"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video", "extract a frame, for example with ffmpeg"),
    (b"version https://git-lfs.github.com/spec/", "Git LFS pointer", "fetch the photos with `git lfs pull`"),
    (b"\0\x05\x16\x07", "AppleDouble file, which holds no pixels", "delete it"),
    (b"qoif", "QOI", _CONVERT),
    (b"v/1\x01", "OpenEXR", _CONVERT),
    (b"#?RADIANCE", "Radiance HDR", _CONVERT),
    (b"\0\0\x01\0", "Windows icon", _CONVERT),
    (b"SQLite format 3\0", "SQLite database", "remove it from the photos"),
)
_RAW_STARTS = tuple(start for start, _, advice in _STARTS if advice == _RAW)
_BRANDS = (  # of an ISO base media file, ISO 14496-12
    (rb"crx ", "Canon CR3, a camera's raw format", _RAW),
    (rb"qt  |mp4.|iso.|M4V.|avc1|3gp.|MSNV|dash", "MP4 or QuickTime video", "extract a frame, for example with ffmpeg"),
)
_AVIF, _WEBP = rb"....ftypavi[fs]", rb"RIFF....WEBP"
_DECODED = (
    (rb"(II\*\0|MM\0\*)(?!....CR)", "TIFF"),
    (_AVIF, "AVIF"),
    (HEIC_START, "HEIC"),
    (_WEBP, "WebP"),
    (rb"\xff\x0a|....JXL ", "JPEG XL"),
)
_SHOWN_BY_BROWSERS = {
    "image/jpeg": rb"\xff\xd8\xff",
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/gif": rb"GIF8[79]a",
    "image/webp": _WEBP,
    "image/bmp": rb"BM.{4}\0{4}",
    "image/avif": _AVIF,
}
_MARKUP = (
    (rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg\b", "SVG drawing", _CONVERT),
    (rb"<!DOCTYPE html|<html|<head|<body", "HTML page", "download the photo itself"),
    (rb"<\?xml", "XML document", "remove it from the photos"),
    (rb"\{\s*[\"}]", "JSON document", "remove it from the photos"),
)
_SOF = re.compile(rb"\xff([\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7])..(.)", re.DOTALL)
_DNG_VERSION, _SUBFILE_TYPE, _SUB_IFDS, _PHOTOMETRIC, _MAKE = 50706, 254, 330, 262, 271
_SENSOR = (32803, 34892)  # colour filter array, linear raw: TIFF/EP and DNG
_REDUCED = 1


def unread_format(data: bytes) -> str:
    """Name a format that is not decoded, and what to do; empty if it is not recognised."""
    for start, name, advice in _STARTS:
        if data.startswith(start):
            return f"{name}; {advice}"
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        brand = data[8:12] if data[4:8] == b"ftyp" else b"qt  "
        for pattern, name, advice in _BRANDS:
            if re.match(pattern, brand):
                return f"{name}; {advice}"
    text = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    for pattern, name, advice in _MARKUP:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return f"{name}; {advice}"
    if data.startswith(b"\xff\xd8"):
        return _rare_jpeg(data)
    if data.startswith((b"II*\0", b"MM\0*")) and len(data) > 8:
        return _raw_tiff(data)
    if not data.strip(b"\0"):
        return "only zeros; restore the file from a backup"
    return ""


def broken_format(data: bytes) -> str:
    """Name the format of a file that begins as one that is decoded, though Pillow cannot open it; empty if none."""
    for pattern, name in _DECODED:
        if re.match(pattern, data, re.DOTALL):
            return name
    return ""


def browser_media_type(data: bytes) -> str | None:
    """Return the media type of an image that every browser shows, from its first 32 bytes; None for other files."""
    return next((kind for kind, start in _SHOWN_BY_BROWSERS.items() if re.match(start, data, re.DOTALL)), None)


def _rare_jpeg(data: bytes) -> str:
    at = 2  # segment by segment: a thumbnail in the EXIF has a frame header, too
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        frame = _SOF.match(data, at)
        if not frame:
            at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            continue
        kind, bits = frame[1][0], frame[2][0]
        if kind == 0xF7:
            return f"JPEG-LS; {_CONVERT}"
        if kind in (0xC3, 0xC7, 0xCB, 0xCF):
            return f"lossless JPEG; {_CONVERT}"
        if kind in (0xC5, 0xC6, 0xCD, 0xCE):
            return f"hierarchical JPEG; {_CONVERT}"
        if bits != 8:
            return f"{bits}-bit JPEG; {_CONVERT} of 8 bits, for example with ImageMagick"
        return ""
    return ""


def raw_format(data: bytes) -> str:
    """Name the raw format of a camera, and what to do; empty for other files.

    The first picture of such a file may be a small preview, which Pillow would decode.
    """
    if data.startswith((b"II*\0", b"MM\0*")) and len(data) > 8:
        return _raw_tiff(data)
    name = unread_format(data) if data[4:8] == b"ftyp" or data.startswith(_RAW_STARTS) else ""
    return name if name.endswith(_RAW) else ""


def _raw_tiff(data: bytes) -> str:
    """Name a raw format from the first directory of a TIFF; most raw formats are such."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    try:
        directory.load(file)
    except Exception:  # hostile bytes may cause any error
        return ""
    return _raw(directory, data)


def _raw(tags: TiffImagePlugin.ImageFileDirectory_v2, data: bytes) -> str:
    make = str(tags.get(_MAKE, "")).strip("\0 ").split(" ")[0].capitalize()
    is_preview = tags.get(_SUBFILE_TYPE, 0) == _REDUCED and _SUB_IFDS in tags
    if data[8:10] == b"CR":
        name = "Canon CR2, a camera's raw format"
    elif _DNG_VERSION in tags:
        name = "DNG, a camera's raw format"
    elif is_preview or tags.get(_PHOTOMETRIC) in _SENSOR:
        name = f"a camera's raw format{f' ({make})' if make.isalnum() else ''}"
    else:
        return ""
    return f"{name}; {_RAW}"
