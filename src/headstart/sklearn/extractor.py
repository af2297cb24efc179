"""Items to features as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from headstart.backbones import locate
from headstart.backbones.catalog import find_source
from headstart.errors import DataError
from headstart.features import compile_prefix, extract
from headstart.features.clips import suit_prefix
from headstart.features.prefix import Prefix
from headstart.model.frames import cells_of, is_frame, is_series
from headstart.preprocess.recipe import Preprocess
from headstart.records import Sample


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Features of a frozen pretrained network; nothing is learned, and nothing is computed twice.

    Args:
        backbone: by name, as for `headstart.fit`, for images or for texts; 'auto' is the default one for images.
        block: 'last', 'multi' (every block's pooled features side by side), or a block's name.
        geometry: how pictures become square: crop, pad or squash; or what is read of long texts: head, head+tail or
            windows; 'auto' is the first that the backbone knows, pad or head.
        image_size: side in pixels of the network's input; None for the weights' own.

    Attributes:
        n_features_out_: D, the number of features.
    """

    def __init__(
        self, backbone: str = "auto", *, block: str = "last", geometry: str = "auto", image_size: int | None = None
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
        self._preprocess(prefix)
        self.n_features_out_ = sum(prefix.spec.widths(self.block))
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:  # noqa: N803 - scikit-learn's names
        """Compute or look up features.

        Args:
            X: N items: paths of pictures or clips, bytes, arrays (H, W, 3), or PIL images; or texts, where the backbone
                takes these. Or a series, or a frame with a column of items.

        Returns:
            (N, D) float32.

        Raises:
            DataError: if X is one item and no sequence, a frame has no column of items, or an item cannot be read.
        """
        items = _items_of(X)
        prefix = suit_prefix(self._open(), items)
        samples = [Sample(id=f"item {position}", item=item) for position, item in enumerate(items)]
        table = extract(prefix, self._preprocess(prefix), samples)
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
        source = locate(self.backbone) if self.backbone == "auto" else find_source(self.backbone)
        return compile_prefix(source, image_size=self.image_size).wait()

    def _preprocess(self, prefix: Prefix) -> Preprocess:
        base = prefix.spec.preprocess
        return base.with_fitting(base.fittings[0] if self.geometry == "auto" else self.geometry)


def _items_of(X: Any) -> list[Any]:  # noqa: ANN401, N803 - scikit-learn's name
    """The items one by one: those of a frame are its column of items, those of an array (N, 1) of objects its only column."""
    if is_frame(X) or is_series(X):
        return cells_of(X)
    if isinstance(X, str | bytes | Path):
        raise DataError(
            f"X is one {type(X).__name__}, and items are expected.",
            expected="a sequence of N items, a series, or a frame with a column of items.",
            mend="pass [X].",
        )
    is_column = isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUS"
    return list(X[:, 0] if is_column else X)
