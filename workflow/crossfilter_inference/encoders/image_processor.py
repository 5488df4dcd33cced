"""The preprocessing that a checkpoint's image processor describes, as transformers writes it.

Every key is honoured or refused. transformers computes `(pixel * rescale_factor - mean) / std`, and `Preprocessing`
computes `(pixel / 255 - mean) / std`. Both are equal if mean and std are divided by `255 * rescale_factor`.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from PIL import Image

from ..errors import InputError
from ..photos.image import Preprocessing

_HALF = [0.5, 0.5, 0.5]
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CROPPED = {"size": 256, "crop_size": 224, "do_center_crop": True}
_CLIP = {
    **_CROPPED,
    "size": 224,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# The image processors of transformers that are supported, and what each assumes for keys that the file lacks. Others
# have steps of their own. That of DINOv3 resizes floats, so it does not round the pixels of the resized image.
DEFAULTS: dict[str, dict[str, Any]] = {
    "BeitImageProcessor": {"size": 224, "crop_size": 224, "resample": 3},
    "BitImageProcessor": _CLIP,
    "CLIPImageProcessor": _CLIP,
    "ConvNextImageProcessor": {"size": 384, "crop_pct": 224 / 256, "resample": 3},
    "DeiTImageProcessor": {**_CROPPED, "resample": 3},
    "DINOv3ViTImageProcessor": {"size": 224, "resample": 2, **_IMAGENET},
    "MobileNetV1ImageProcessor": {**_CROPPED, "resample": 2},
    "MobileNetV2ImageProcessor": {**_CROPPED, "resample": 2},
    "PvtImageProcessor": {"size": 224, "resample": 3, **_IMAGENET},
    "SiglipImageProcessor": {"size": 224, "resample": 3},
    "Siglip2ImageProcessor": {"patch_size": 16, "max_num_patches": 256, "resample": 2},
    "ViTImageProcessor": {"size": 224, "resample": 2},
}
_CONVNEXT_UNCROPPED = 384  # from this size on, its image processor does not crop
_RESCALE_FACTOR = 1 / 255
_HONOURED = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
_Color = tuple[float, float, float]


class _Keys:
    """The values of an image processor with the defaults of its type, and the file for messages."""

    def __init__(self, path: str, values: Mapping[str, Any], defaults: Mapping[str, Any]):
        self._path, self._values = path, values
        self._known = {**defaults, **{key: value for key, value in values.items() if value is not None}}

    def get(self, key: str, default: Any = None) -> Any:
        return self._known.get(key, default)

    def refuse(self, key: str, reason: str) -> InputError:
        value = self._values.get(key, self._known.get(key))
        return InputError(
            f"model: {key}: {value!r} in {self._path!r} {reason}; choose another model or correct the file"
        )

    def flag(self, key: str, *, default: bool = True) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "is neither true nor false")
        return value

    def whole(self, key: str) -> int:
        value = self.get(key)
        if not _is_whole(value):
            raise self.refuse(key, "is not a whole number from 1 to 10000")
        return int(value)

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if not _is_number(value) or value <= 0:
            raise self.refuse(key, "is not a number above 0")
        return float(value)

    def side(self, key: str) -> int:
        """Return the side of a square."""
        value = self.get(key)
        sides = [*value.values()] if isinstance(value, dict) else [value]
        names = {*value} if isinstance(value, dict) else {"shortest_edge"}
        # Of a square photo, the shortest edge is every edge.
        if names not in ({"height", "width"}, {"shortest_edge"}) or not all(map(_is_whole, sides)):
            raise self.refuse(key, "is not supported (a whole number, shortest_edge, or height and width)")
        if len({*sides}) > 1:
            raise self.refuse(key, "is not square")
        return int(sides[0])

    def color(self, key: str) -> _Color:
        value = self.get(key, _HALF)
        values = [value] * 3 if _is_number(value) else value
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
            raise self.refuse(key, "is not three finite numbers, one for each of red, green and blue")
        return (values[0], values[1], values[2])


def read_preprocessing(
    path: str,
    values: Mapping[str, Any],
    kinds: Collection[str],
    *,
    unnamed: str = "",
    image_size: int | None = None,
    patch_size: int | None = None,
) -> Preprocessing:
    """Translate the keys of an image processor.

    Parameters
    ----------
    path : str
        File, for messages.
    values : dict
        Its keys.
    kinds : collection of str
        The types of image processors, of `DEFAULTS`, that fit the model. If there is only one, the file need not name
        it.
    unnamed : str
        The type if the file names none.
    image_size, patch_size : int, optional
        Side in pixels that the network takes; of the image, or of a patch if it takes patches.

    Raises
    ------
    InputError
        If a key has a value that cannot be honoured. The message names it.
    """
    kind = _kind(path, values, kinds, unnamed)
    keys = _Keys(path, values, DEFAULTS[kind])
    if "auto_map" in values:
        raise keys.refuse("auto_map", "names code of the checkpoint, which is never run")
    for key in sorted(values):
        if key.startswith("do_") and key not in _HONOURED and values[key] not in (False, None):
            raise keys.refuse(key, "is not supported (only false)")
    keys.flag("do_convert_rgb")  # photos are RGB before the encoder sees them
    if not keys.flag("do_resize"):
        raise keys.refuse("do_resize", "is not supported: photos have many sizes, and the network takes one")
    resize, size = _square_of_patches(keys, patch_size) if patch_size else _square(keys, kind)
    if image_size not in (None, size):
        key = "size" if size == resize else "crop_size"
        raise keys.refuse(
            key, f"does not match the network, which takes {image_size} pixels (vision_config.image_size)"
        )
    mean, std = _normalisation(keys)
    return Preprocessing(
        size=size, resample=_resample(keys), mean=mean, std=std, resize=0 if resize == size else resize
    )


def _kind(path: str, values: Mapping[str, Any], kinds: Collection[str], unnamed: str) -> str:
    """Return the type of an image processor; transformers 4 called it a feature extractor."""
    key = "image_processor_type" if values.get("image_processor_type") is not None else "feature_extractor_type"
    given = values.get(key)
    if given is None and (unnamed or len(kinds) == 1):
        return unnamed or next(iter(kinds))
    name = given.removesuffix("Fast").removesuffix("Pil") if isinstance(given, str) else ""
    name = name.replace("FeatureExtractor", "ImageProcessor")
    if name not in kinds:
        keys = _Keys(path, values, {})
        raise keys.refuse(
            "image_processor_type" if given is None else key, f"is not supported for this model ({', '.join(kinds)})"
        )
    return name


def _square(keys: _Keys, kind: str) -> tuple[int, int]:
    """Return the side to which a square photo is resized, and that of its middle, which the network gets."""
    resize = size = keys.side("size")
    if kind == "ConvNextImageProcessor" and size < _CONVNEXT_UNCROPPED:
        resize = int(size / keys.positive("crop_pct"))
    if keys.flag("do_center_crop", default=False):
        if keys.get("crop_size") is None:
            raise keys.refuse("do_center_crop", "is not supported without a crop_size")
        size = keys.side("crop_size")
    if size > resize:
        raise keys.refuse("crop_size" if keys.get("do_center_crop") else "crop_pct", "is larger than the image")
    return resize, size


def _square_of_patches(keys: _Keys, expected: int) -> tuple[int, int]:
    n_patches = keys.whole("max_num_patches")
    if keys.whole("patch_size") != expected:
        raise keys.refuse(
            "patch_size", f"does not match the network, which takes {expected} (vision_config.patch_size)"
        )
    if keys.flag("do_center_crop", default=False):
        raise keys.refuse("do_center_crop", "is not supported (only false)")
    side = math.isqrt(n_patches) * expected
    return side, side


def _normalisation(keys: _Keys) -> tuple[_Color, _Color]:
    mean, std = keys.color("image_mean"), keys.color("image_std")
    if min(std) <= 0:
        raise keys.refuse("image_std", "is not above 0")
    if not keys.flag("do_normalize"):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = keys.positive("rescale_factor", _RESCALE_FACTOR)
    if not keys.flag("do_rescale"):
        factor = 1
    if math.isclose(factor, _RESCALE_FACTOR, rel_tol=1e-9):  # the usual case, to the last bit
        return mean, std
    scale = 255 * factor
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


def _resample(keys: _Keys) -> int:
    value = keys.get("resample")
    by_name = {filter_.name.lower(): int(filter_) for filter_ in Image.Resampling}
    number = by_name.get(value.lower()) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in by_name.values():
        raise keys.refuse("resample", f"is not one of Pillow's filters (0 to 5, or {', '.join(by_name)})")
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
