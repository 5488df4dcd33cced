"""Camera RAW: the preview that the camera embeds in the file, or else the sensor's pixels, developed at half size.

LibRaw reads these formats, through the package rawpy, which an extra installs.
"""

import io
from importlib.util import find_spec

from PIL import Image

from .exif import Exif, exif_of_tiff

_TIFF_STARTS = (b"II*\0", b"MM\0*")
_FEWEST_PIXELS = 640  # on the short side of a preview
# LibRaw's number of a rotation, and EXIF's.
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}


def can_read_raw() -> bool:
    """Return whether rawpy is installed."""
    return find_spec("rawpy") is not None


def develop(data: bytes) -> tuple[bytes, Exif | None]:
    """Make an ordinary image file of a RAW file.

    Returns
    -------
    image : bytes
        A JPEG or BMP file, not upright.
    exif : Exif or None
        With the orientation of the image; None if the image's own EXIF is that of the photo.

    Raises
    ------
    OSError
        If LibRaw cannot read the file.
    """
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            orientation = _ORIENTATIONS.get(raw.sizes.flip, 1)  # developing resets it
            image = _preview(raw)
            if image is None:
                image = _saved(Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0)))
    except rawpy.LibRawError as error:
        [message] = error.args or [b""]
        raise OSError(f"LibRaw: {message.decode() if isinstance(message, bytes) else message}") from None
    return image, exif_of_tiff(data, orientation) if data.startswith(_TIFF_STARTS) else None


def _preview(raw: "rawpy.RawPy") -> bytes | None:  # type: ignore[name-defined]  # noqa: F821
    """Return the largest preview; None if there is none of a useful size."""
    import rawpy

    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if preview.format == rawpy.ThumbFormat.BITMAP:
        image = Image.fromarray(preview.data)
        return _saved(image) if min(image.size) >= _FEWEST_PIXELS else None
    with Image.open(io.BytesIO(preview.data), formats=("JPEG",)) as image:
        return preview.data if min(image.size) >= _FEWEST_PIXELS else None


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "BMP")
    return file.getvalue()
