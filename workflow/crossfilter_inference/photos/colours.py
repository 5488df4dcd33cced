"""Colours of an image, converted to sRGB by the ICC profile of its file.

The conversion is applied to pixels that are already reduced, where it costs next to nothing. The order of the two
hardly changes a colour.
"""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MOST_BYTES = 2**22  # profiles of printers take 2 MB
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}  # ICC.1, 7.2.6
_SAME_COLOURS = 2  # of 255: profiles called sRGB differ from ours by rounding


def profile_of(image: Image.Image) -> bytes | None:
    """Return the ICC profile of an opened file, if it has one of a reasonable size."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and 0 < len(profile) <= _MOST_BYTES else None


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB. A profile that is broken, or of another colour space, is ignored.

    Parameters
    ----------
    image : PIL.Image.Image
        In mode L, RGB, CMYK or LAB.
    profile : bytes or None

    Returns
    -------
    PIL.Image.Image
        In mode RGB.
    """
    transform = _transform(profile, image.mode) if profile or image.mode == "LAB" else None
    return (transform.apply(image) if transform else image).convert("RGB")


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform of a profile to sRGB; None if it would change nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        if profile and source.profile.xcolor_space != _SPACES.get(mode):
            return _transform(None, mode) if mode == "LAB" else None
        transform = ImageCms.ImageCmsTransform(
            source,
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode in ("L", "RGB") and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[steps] * 3), axis=-1).reshape(9, -1, 3) if mode == "RGB" else steps[None]
    image = Image.fromarray(colours)
    difference = np.asarray(transform.apply(image), np.int16) - np.asarray(image.convert("RGB"))
    return bool(np.abs(difference).max() <= _SAME_COLOURS)
