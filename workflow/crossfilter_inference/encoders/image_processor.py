"""The preprocessing that a checkpoint's image processor describes, as transformers writes it.

Every key is honoured or refused. transformers computes `(pixel * rescale_factor - mean) / std`, and `Preprocessing`
computes `(pixel / 255 - mean) / std`. Both are equal if mean and std are divided by `255 * rescale_factor`.
"""

import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..errors import InputError
from ..photos.image import Preprocessing

# What transformers assumes for keys that the file lacks (models/siglip and models/siglip2).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "SiglipImageProcessor": {"size": {"height": 224, "width": 224}, "resample": 3},
    "Siglip2ImageProcessor": {"patch_size": 16, "max_num_patches": 256, "resample": 2},
}
_TYPES = {"siglip": "SiglipImageProcessor", "siglip2": "Siglip2ImageProcessor"}
_RESCALE_FACTOR = 1 / 255
_HONOURED = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
_Color = tuple[float, float, float]


class _Keys:
    """The values of an image processor, with the file for messages."""

    def __init__(self, path: str, values: Mapping[str, Any]):
        self._path, self.values = path, values

    def get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def refuse(self, key: str, reason: str) -> InputError:
        value = self.values.get(key)
        return InputError(
            f"model: {key}: {value!r} in {self._path!r} {reason}; choose another model or correct the file"
        )

    def flag(self, key: str) -> bool:
        value = self.get(key, True)
        if not isinstance(value, bool):
            raise self.refuse(key, "is neither true nor false")
        return value

    def whole(self, key: str, default: Any) -> int:
        value = self.get(key, default)
        if not _is_whole(value):
            raise self.refuse(key, "is not a whole number from 1 to 10000")
        return int(value)

    def color(self, key: str) -> _Color:
        value = self.get(key, 0.5)
        values = [value] * 3 if _is_number(value) else value
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
            raise self.refuse(key, "is not three finite numbers, one for each of red, green and blue")
        return (values[0], values[1], values[2])


def read_preprocessing(path: str, values: Mapping[str, Any], model_type: str, network: Any) -> Preprocessing:
    """Translate the keys of an image processor.

    Parameters
    ----------
    path : str
        File, for messages.
    values : dict
        Its keys.
    model_type : {"siglip", "siglip2"}
    network : object
        Has the `image_size` (siglip) or `patch_size` (siglip2) that the network takes.

    Raises
    ------
    InputError
        If a key has a value that cannot be honoured. The message names it.
    """
    keys = _Keys(path, values)
    kind = _TYPES[model_type]
    given = keys.get("image_processor_type", kind)
    if not isinstance(given, str) or given.removesuffix("Fast").removesuffix("Pil") != kind:
        raise keys.refuse("image_processor_type", f"is not supported for the model type {model_type} (only {kind})")
    if "auto_map" in values:
        raise keys.refuse("auto_map", "names code of the checkpoint, which is never run")
    for key in sorted(values):
        if key.startswith("do_") and key not in _HONOURED and values[key] not in (False, None):
            raise keys.refuse(key, "is not supported (only false)")
    keys.flag("do_convert_rgb")  # photos are RGB before the encoder sees them
    if not keys.flag("do_resize"):
        raise keys.refuse("do_resize", "is not supported: photos have many sizes, and the network takes one")
    defaults = _DEFAULTS[kind]
    if model_type == "siglip":
        size = _side(keys, defaults["size"], network.image_size)
    else:
        size = _side_of_patches(keys, defaults, network.patch_size)
    mean, std = _normalisation(keys)
    return Preprocessing(size=size, resample=_resample(keys, defaults["resample"]), mean=mean, std=std)


def _side(keys: _Keys, default: dict[str, int], expected: int) -> int:
    size = keys.get("size", default)
    sides = [*size.values()] if isinstance(size, dict) else [size]
    names = {*size} if isinstance(size, dict) else {"shortest_edge"}
    # Of a square photo, the shortest edge is every edge.
    if names not in ({"height", "width"}, {"shortest_edge"}) or not all(map(_is_whole, sides)):
        raise keys.refuse("size", "is not supported (a whole number, shortest_edge, or height and width)")
    if len({*sides}) > 1:
        raise keys.refuse("size", "is not square")
    if sides[0] != expected:
        raise keys.refuse(
            "size", f"does not match the network, which takes {expected} pixels (vision_config.image_size)"
        )
    return expected


def _side_of_patches(keys: _Keys, defaults: Mapping[str, int], expected: int) -> int:
    n_patches = keys.whole("max_num_patches", defaults["max_num_patches"])
    if keys.whole("patch_size", defaults["patch_size"]) != expected:
        raise keys.refuse(
            "patch_size", f"does not match the network, which takes {expected} (vision_config.patch_size)"
        )
    return math.isqrt(n_patches) * expected


def _normalisation(keys: _Keys) -> tuple[_Color, _Color]:
    mean, std = keys.color("image_mean"), keys.color("image_std")
    if min(std) <= 0:
        raise keys.refuse("image_std", "is not above 0")
    if not keys.flag("do_normalize"):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = keys.get("rescale_factor", _RESCALE_FACTOR)
    if not _is_number(factor) or factor <= 0:
        raise keys.refuse("rescale_factor", "is not a number above 0")
    if not keys.flag("do_rescale"):
        factor = 1
    if math.isclose(factor, _RESCALE_FACTOR, rel_tol=1e-9):  # the usual case, to the last bit
        return mean, std
    scale = 255 * factor
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


def _resample(keys: _Keys, default: int) -> int:
    value = keys.get("resample", default)
    by_name = {filter_.name.lower(): int(filter_) for filter_ in Image.Resampling}
    number = by_name.get(value.lower()) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in by_name.values():
        raise keys.refuse("resample", f"is not one of Pillow's filters (0 to 5, or {', '.join(by_name)})")
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
