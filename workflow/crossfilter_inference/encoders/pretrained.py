"""Networks of transformers, with the weights of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import InputError
from .checkpoint import CONFIG, check_weights, describe_error, read_weights
from .hub import import_transformers
from .protocol import Embeddings

_VOCABULARIES = ("tokenizer.json", "vocab.json", "*.model")


class Tower(NamedTuple):
    """One of the two networks of a checkpoint: that of images, or that of texts.

    Attributes
    ----------
    name : str
        Of its class in transformers. Only the towers that are used are imported.
    config : object of transformers
    prefixes : tuple of str
        The names of its weights in the files begin with one of these.
    output : str
        The output of the network that is the embedding.
    dropped : str
        Prefix that the network's own names lack.
    """

    name: str
    config: Any
    prefixes: tuple[str, ...]
    output: str
    dropped: str = ""

    @property
    def kind(self) -> Any:
        """Its class in transformers."""
        return getattr(import_transformers(), self.name)


def read_network_config(folder: Path, values: Mapping[str, Any]) -> Any:
    """Read the values of `config.json` into an object of transformers.

    Raises
    ------
    InputError
        If transformers does not know the model type, or refuses a value.
    """
    kinds = import_transformers().CONFIG_MAPPING
    if (model_type := values["model_type"]) not in kinds:
        version = import_transformers().__version__
        raise InputError(
            f"model: {str(folder / CONFIG)!r} is of type {model_type!r}, which transformers {version} does not know; "
            "choose another model, or update transformers"
        )
    try:
        return kinds[model_type].from_dict(values)
    except Exception as error:  # transformers checks values in many ways
        raise describe_error(folder / CONFIG, error) from None


def check_value(folder: Path, config: Any, key: str, needed: object) -> None:
    """Refuse a value of `config.json` that would change what a backend does; the key may be missing."""
    if (value := getattr(config.vision_config, key, needed)) != needed:
        raise InputError(
            f"model: vision_config.{key} in {str(folder / CONFIG)!r} is {value!r}, but must be {needed!r}; choose "
            "another model"
        )


def check_tower(files: list[Path], tower: Tower) -> None:
    """Check that files hold the weights of a tower; see `check_weights`."""
    try:
        with torch.device("meta"):
            weights = tower.kind(tower.config).state_dict()
    except Exception as error:  # impossible values raise errors of many kinds
        raise describe_error(files[0].with_name(CONFIG), error) from None
    shapes = {f"{tower.dropped}{name}": tuple(weight.shape) for name, weight in weights.items()}
    check_weights(files, tower.prefixes, shapes)


def load_tower(files: list[Path], tower: Tower, dtype: str) -> nn.Module:
    """Load a tower, without the weights of the other one."""
    weights = read_copies(files, tower.prefixes)
    model: nn.Module = tower.kind.from_pretrained(
        None, config=tower.config, state_dict=weights, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    )
    return model


def read_copies(files: list[Path], prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor]:
    """Read weights for `from_pretrained`.

    transformers gets no folder, so that it cannot load other files: an adapter, weights in another format, or code. The
    weights are copied, because those that are mapped into memory would change with their file.
    """
    return {name: weight.clone() for name, weight in read_weights(files, prefixes).items()}


def network_dtype(provenance: Mapping[str, Any]) -> str:
    """Return the number format in which to load a network: OpenVINO converts it from float32."""
    return "float32" if provenance["runtime"] == "openvino" else str(provenance["dtype"])


class ImageTower(nn.Module):
    """Turn images of shape (n_images, 3, size, size) into features of shape (n_images, n_dims)."""

    def __init__(self, model: Any, output: str):  # one of transformers' models
        super().__init__()
        self.model, self._output = model, output

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, not normalised."""
        features: torch.Tensor = getattr(self.model(pixel_values=images), self._output)
        return features


class TextTower:
    """Embed texts in float32 on the CPU.

    Parameters
    ----------
    files : list of Path
        The weights of a checkpoint. Its folder holds the tokenizer.
    tower : Tower
    lower_case : bool
        Whether to convert texts to lower case first, as in the training of the model.
    """

    def __init__(self, files: list[Path], tower: Tower, *, lower_case: bool):
        check_tower(files, tower)
        self._model = load_tower(files, tower, "float32").eval()
        self._output, self._lower_case = tower.output, lower_case
        self._n_tokens = tower.config.max_position_embeddings
        self._tokenizer = _load_tokenizer(files[0].parent)

    def encode_texts(self, texts: list[str]) -> Embeddings:
        """Embed texts; see `TextEncoder`. Tokens beyond the model's limit (64 or 77) are ignored."""
        # SigLIP was trained with texts of the full length; without padding, its embeddings differ.
        tokens = self._tokenizer(
            [text.lower() if self._lower_case else text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._n_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            features = getattr(self._model(**tokens), self._output)
            rows: Embeddings = nn.functional.normalize(features).numpy()
        return rows


def _load_tokenizer(folder: Path) -> Any:
    failure = InputError(
        f"model: {str(folder)!r} has no tokenizer, so it cannot embed text; copy the tokenizer's files there"
    )
    # Without them, transformers makes a tokenizer for CLIP that knows no letter.
    if not any(path for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        raise failure
    try:
        return import_transformers().AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception:  # its libraries raise errors of many kinds
        raise failure from None
