"""Items to features as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from headstart.backbones import locate
from headstart.errors import DataError
from headstart.features import compile_prefix, extract
from headstart.features.prefix import Prefix
from headstart.records import Sample


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Features of a frozen pretrained network; nothing is learned, and nothing is computed twice.

    Args:
        backbone: by name, as for `headstart.fit`.
        block: 'last', 'multi' (every block's pooled features side by side), or a block's name.
        geometry: how pictures become square: crop, pad or squash.
        image_size: side in pixels of the network's input; None for the weights' own.

    Attributes:
        n_features_out_: D, the number of features.
    """

    def __init__(
        self, backbone: str = "auto", *, block: str = "last", geometry: str = "pad", image_size: int | None = None
    ) -> None:
        self.backbone = backbone
        self.block = block
        self.geometry = geometry
        self.image_size = image_size

    def fit(self, X: Sequence[Any], y: object = None) -> FeatureExtractor:  # noqa: N803 - scikit-learn's names
        """Check the settings.

        Args:
            X: N items; not looked at.
            y: ignored.

        Returns:
            The extractor itself.

        Raises:
            HeadstartError: if there is no such backbone, block or geometry.
        """
        prefix = self._open()
        prefix.spec.preprocess.with_geometry(self.geometry)
        columns = prefix.spec.columns(self.block)
        self.n_features_out_ = columns.stop - columns.start
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:  # noqa: N803 - scikit-learn's names
        """Compute or look up features.

        Args:
            X: N items: paths, bytes, arrays (H, W, 3), or PIL images.

        Returns:
            (N, D) float32.

        Raises:
            DataError: if an item cannot be read; all such are named.
        """
        prefix = self._open()
        samples = [Sample(id=f"item {position}", item=item) for position, item in enumerate(X)]
        table = extract(prefix, prefix.spec.preprocess.with_geometry(self.geometry), samples)
        if table.failures:
            told = "".join(f"\n  - {id_}: {reason}" for id_, reason in list(table.failures.items())[:20])
            raise DataError(
                f"{len(table.failures)} of {len(samples)} items cannot be read:{told}",
                expected="items that can be decoded.",
                mend="leave them out: `headstart check` lists such items.",
            )
        return np.ascontiguousarray(table.features(self.block))

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the features: block and number."""
        return np.array([f"{self.block}_{number}" for number in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        """Say that items are no table, and that fitting learns nothing."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        tags.requires_fit = False
        return tags

    def _open(self) -> Prefix:
        """Opened anew each time: a compiled network cannot be pickled, and opening it takes a tenth of a second."""
        return compile_prefix(locate(self.backbone), image_size=self.image_size).wait()
