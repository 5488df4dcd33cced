"""Pooling: how the outputs of a vision model of transformers become one row per image."""

import torch
from torch import nn

from ..errors import InputError

POOLINGS = ("cls", "mean", "pooler")
_CLASS_TOKENS = ("cls_token", "class_embedding")  # names of its weights in the networks of transformers


class PooledNetwork(nn.Module):
    """Turn images of shape (n_images, 3, size, size) into features of shape (n_images, n_dims).

    Parameters
    ----------
    model : torch.nn.Module
        A vision model of transformers.
    pooling : {"cls", "mean", "pooler"}
        The class token, the mean of the patches, or the model's own pooling.
    """

    def __init__(self, model: nn.Module, pooling: str):
        super().__init__()
        self.model, self._pooling = model, pooling

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, not normalised.

        Raises
        ------
        InputError
            If the model has nothing of this kind.
        """
        output = self.model(pixel_values=images)
        # Shape (n_images, n_tokens, n_dims); of convolutional networks (n_images, n_dims, n_rows, n_columns).
        states: torch.Tensor = output.last_hidden_state
        is_sequence = states.ndim == 3
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        if self._pooling == "pooler" and pooled is not None:
            return pooled.flatten(1)
        if self._pooling == "cls" and is_sequence and self._has_class_token():
            return states[:, 0]
        if self._pooling == "mean":
            patches = states[:, self._n_before_patches(states, images) :] if is_sequence else states.flatten(2).mT
            return patches.mean(1)
        others = " or ".join(pooling for pooling in POOLINGS if pooling != self._pooling)
        raise InputError(f"pooling: the model has no {self._pooling}; set pooling to {others}")

    def _has_class_token(self) -> bool:
        return any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in self.model.named_parameters())

    def _n_before_patches(self, states: torch.Tensor, images: torch.Tensor) -> int:
        """Count the class and register tokens. Networks that merge patches have none, and fewer tokens than patches."""
        side = getattr(self.model.config, "patch_size", None)
        side = side[0] if isinstance(side, list | tuple) else side
        return max(0, states.shape[1] - (images.shape[-1] // side) ** 2) if isinstance(side, int) else 0
