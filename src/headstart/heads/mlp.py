"""A head with hidden layers, in numpy: what a trained one is once it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.errors import DataError
from headstart.heads.linear import LinearHead


@dataclass(frozen=True, kw_only=True)
class MlpHead:
    """Dense layers on raw features, ReLU between them; whatever scaling the training used is folded into the weights."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Weight (out, in) float32 and bias (out,) float32 of each, first to last; the last one gives K scores."""
    kind: str = "mlp"

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        return tuple(len(bias) for _, bias in self.layers[:-1])

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Scores of raw features.

        Args:
            features: (N, D) float32 or float64, from the backbone the head was trained on.

        Returns:
            (N, K) float32, as of a linear head.

        Raises:
            DataError: if the features are not (N, D).
        """
        wanted = self.layers[0][0].shape[1]
        if features.ndim != 2 or features.shape[1] != wanted:
            raise DataError(
                f"the head got features of shape {features.shape}.",
                expected=f"(N, {wanted}), the width it was trained on.",
                mend="extract the features with the backbone, block and preprocess the head was trained with.",
            )
        values = features.astype(np.float32, copy=False)
        for weight, bias in self.layers[:-1]:
            values = np.maximum(values @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        return values @ weight.T + bias


Head = LinearHead | MlpHead


def dense_layers(head: Head) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Weight (out, in) and bias (out,) of each layer of a head, first to last; a linear head has one."""
    return head.layers if isinstance(head, MlpHead) else ((head.weight, head.bias),)
