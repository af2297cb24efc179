"""The exact heads as scikit-learn estimators: for pipelines, grid searches and whoever has features already.

    from headstart.sklearn import ExactLogisticClassifier
    ExactLogisticClassifier().fit(features, names).predict_proba(others)

Each chooses its penalty as it fits, on features scaled as `scaling` says; `penalties` are on that scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.errors import SettingError
from headstart.heads.folds import make_folds
from headstart.heads.linear import LinearHead
from headstart.heads.logistic import fit_logistic
from headstart.heads.ridge import balanced_class_weights, fit_ridge, fit_ridge_value
from headstart.heads.temperature import fit_temperature

__all__ = ["ExactLogisticClassifier", "ExactRidgeClassifier", "ExactRidgeRegressor"]

ScalingName = Literal["global", "root", "standard"]


class _LinearClassifier(ClassifierMixin, BaseEstimator):
    """What both classifiers do once they have learned; abstract, as only they know how to fit."""

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    temperature_: float

    def decision_function(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """Scores (N, K), or the second class's lead (N,) for two classes.

        Args:
            X: (N, D).

        Returns:
            The scores; the highest (or the positive one) is the label's.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        scores = features @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """Probabilities of the classes: a softmax of the scores divided by `temperature_`.

        Args:
            X: (N, D).

        Returns:
            (N, K) float64 whose rows sum to 1.
        """
        return _probabilities(self.decision_function(X), self.temperature_)

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """The likeliest label of each row.

        Args:
            X: (N, D).

        Returns:
            (N,) labels as they were given to `fit`.
        """
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)]


class ExactRidgeClassifier(_LinearClassifier):
    """Ridge regression on ±1 targets, the penalty chosen by exact leave-one-out over the whole grid at once.

    Args:
        penalties: one number or several, > 0, on features scaled to unit mean square; None for 20 from 1e-4 to 1e2 times D.
        class_weight: None, "balanced", or a dict from label to weight.
        scaling: "global", "root" or "standard".

    Attributes:
        classes_: (K,) the labels, sorted.
        coef_: (K, D), or (1, D) for two classes.
        intercept_: (K,), or (1,).
        penalty_: the one chosen.
        temperature_: by which scores are divided for `predict_proba`; fitted on the leave-one-out scores.
        n_features_in_: D.
    """

    def __init__(
        self,
        *,
        penalties: Sequence[float] | np.ndarray | float | None = None,
        class_weight: str | dict[Any, float] | None = None,
        scaling: ScalingName = "global",
    ) -> None:
        """Store the settings, as scikit-learn asks; `fit` looks at them."""
        self.penalties = penalties
        self.class_weight = class_weight
        self.scaling = scaling

    def fit(self, X: np.ndarray, y: np.ndarray) -> ExactRidgeClassifier:  # noqa: N803 - scikit-learn's name
        """Learn the head.

        Args:
            X: (N, D) finite numbers.
            y: (N,) labels of any type that sorts.

        Returns:
            Itself.

        Raises:
            ValueError: as scikit-learn raises it for arrays that cannot be used, or for one class.
            SettingError: for a setting that cannot work.
        """
        features, numbers = _learn_classes(self, X, y)
        num_classes = len(self.classes_)
        weights = _class_weights(self.class_weight, self.classes_, numbers)
        chosen = self.penalties, weights, self.scaling
        fit = fit_ridge(
            features, numbers, num_classes=num_classes, penalties=chosen[0], class_weights=chosen[1], scaling=chosen[2]
        )
        _keep_classes(self, fit.head)
        self.temperature_ = fit_temperature(fit.loo_scores, numbers)
        return self


class ExactLogisticClassifier(_LinearClassifier):
    """Multinomial L2 logistic regression, the penalty chosen by cross-validated log-loss, all folds solved at once.

    Args:
        penalties: one number or several, > 0, on features scaled to unit mean square; None for nine from 1 to 1e-4 times D.
        class_weight: None, "balanced", or a dict from label to weight.
        num_folds: at least 2, to choose among several penalties.
        seed: deals the rows to folds.
        scaling: "global", "root" or "standard".

    Attributes:
        classes_: (K,) the labels, sorted.
        coef_: (K, D), or (1, D) for two classes.
        intercept_: (K,), or (1,).
        penalty_: the one chosen; with a single penalty the same minimiser as scikit-learn's LogisticRegression on the scaled
            features with C = 1 / penalty (2 / penalty for two classes).
        temperature_: 1; the logits need none.
        n_features_in_: D.
    """

    def __init__(
        self,
        *,
        penalties: Sequence[float] | np.ndarray | float | None = None,
        class_weight: str | dict[Any, float] | None = None,
        num_folds: int = 5,
        seed: int = 0,
        scaling: ScalingName = "global",
    ) -> None:
        """Store the settings, as scikit-learn asks; `fit` looks at them."""
        self.penalties = penalties
        self.class_weight = class_weight
        self.num_folds = num_folds
        self.seed = seed
        self.scaling = scaling

    def fit(self, X: np.ndarray, y: np.ndarray) -> ExactLogisticClassifier:  # noqa: N803
        """Learn the head.

        Args:
            X: (N, D) finite numbers.
            y: (N,) labels of any type that sorts.

        Returns:
            Itself.

        Raises:
            ValueError: as scikit-learn raises it for arrays that cannot be used, or for one class.
            SettingError: for a setting that cannot work.
        """
        features, numbers = _learn_classes(self, X, y)
        head = fit_logistic(
            features,
            numbers,
            num_classes=len(self.classes_),
            penalties=self.penalties,
            class_weights=_class_weights(self.class_weight, self.classes_, numbers),
            folds=make_folds(numbers, task="single", seed=self.seed, num_folds=self.num_folds),
            scaling=self.scaling,
        )
        _keep_classes(self, head)
        self.temperature_ = 1.0
        return self


class ExactRidgeRegressor(RegressorMixin, BaseEstimator):
    """Ridge regression, the penalty chosen by exact leave-one-out over the whole grid at once.

    Args:
        penalties: one number or several, > 0, on features scaled to unit mean square; None for 20 from 1e-4 to 1e2 times D.
        scaling: "global", "root" or "standard".

    Attributes:
        coef_: (D,), or (T, D) where y has columns.
        intercept_: a number, or (T,).
        penalty_: the one chosen.
        n_features_in_: D.
    """

    def __init__(
        self, *, penalties: Sequence[float] | np.ndarray | float | None = None, scaling: ScalingName = "global"
    ) -> None:
        """Store the settings, as scikit-learn asks; `fit` looks at them."""
        self.penalties = penalties
        self.scaling = scaling

    def fit(self, X: np.ndarray, y: np.ndarray) -> ExactRidgeRegressor:  # noqa: N803
        """Learn the head.

        Args:
            X: (N, D) finite numbers.
            y: (N,) or (N, T) finite numbers.

        Returns:
            Itself.

        Raises:
            ValueError: as scikit-learn raises it for arrays that cannot be used.
        """
        features, targets = validate_data(
            self, X, y, dtype=(np.float64, np.float32), multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        # A head is float32, which would lose the digits of targets far from 0.
        offset = targets.mean(axis=0)
        fit = fit_ridge_value(features, targets - offset, penalties=self.penalties, scaling=self.scaling)
        weight, bias = fit.head.weight.astype(np.float64), fit.head.bias.astype(np.float64) + offset
        self.coef_ = weight[0] if targets.ndim == 1 else weight
        self.intercept_ = bias[0] if targets.ndim == 1 else bias
        self.penalty_ = fit.head.penalty
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """The value of each row.

        Args:
            X: (N, D).

        Returns:
            (N,) or (N, T) float64.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return features @ self.coef_.T + self.intercept_

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's own type
        """Say that several targets may be fitted at once."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _learn_classes(estimator: Any, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401, N803
    """Checked features, and labels as class numbers; sets `classes_`."""
    features, labels = validate_data(estimator, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2)
    check_classification_targets(labels)
    estimator.classes_, numbers = np.unique(labels, return_inverse=True)
    if len(estimator.classes_) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs at least 2 classes; the data has 1 class: {estimator.classes_[0]!r}"
        )
    return features, numbers


def _class_weights(wanted: str | dict[Any, float] | None, classes: np.ndarray, numbers: np.ndarray) -> np.ndarray | None:
    if wanted is None:
        return None
    if wanted == "balanced":
        return balanced_class_weights(numbers, len(classes))
    if not isinstance(wanted, dict):
        raise SettingError(
            f"class_weight is {wanted!r}.",
            expected='None, "balanced", or a dict from label to weight.',
            mend='pass class_weight="balanced".',
        )
    unknown = [key for key in wanted if key not in set(classes.tolist())]
    if unknown:
        raise SettingError(
            f"class_weight has the keys {', '.join(map(repr, unknown[:10]))}, which no label of y is.",
            expected=f"labels among {', '.join(map(repr, classes.tolist()[:20]))}; those left out weigh 1.",
            mend="correct the keys: they are of the type of y, such as 1 and not '1'.",
        )
    return np.array([wanted.get(label, 1.0) for label in classes.tolist()])


def _keep_classes(estimator: Any, head: LinearHead) -> None:  # noqa: ANN401
    """Keep weight and bias as scikit-learn's linear classifiers do: two classes are one row, the second's lead."""
    weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
    if len(bias) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    estimator.coef_, estimator.intercept_, estimator.penalty_ = weight, bias, head.penalty


def _probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    table = np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores.copy()
    table /= temperature
    table -= table.max(axis=1, keepdims=True)
    np.exp(table, out=table)
    return table / table.sum(axis=1, keepdims=True)
