"""One model's evidence: every number with its interval, what it rests on, and a warning in words where it shows nothing.

Numbers that cannot be evaluated (no item, shapes that disagree, NaN or infinity) raise a `DataError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.errors import DataError
from headstart.evidence import metrics
from headstart.evidence.evaluation import Evaluation, tabulate_classes, tabulate_reliability
from headstart.evidence.intervals import (
    Interval,
    bootstrap_ece,
    bootstrap_macro_f1,
    bootstrap_mean,
    bootstrap_means,
    centred_interval,
    clopper_pearson,
    percentile_interval,
    widen_perfect,
)
from headstart.evidence.multilabel import bound_multi, measure_multi

LEAST_ECE, ECE_DEVIATIONS = 0.05, 3.0
"""A calibration error is worth a warning above both: this much, and so many deviations above what chance alone gives."""


def evaluate_single(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    seed: int,
    basis: str | None = None,
) -> Evaluation:
    """Evaluate a model that gives each item one label.

    Args:
        probabilities: (N, K) float in [0, 1], rows sum to 1; of items the model did not learn from.
        labels: (N,) int in [0, K), the truth.
        names: K label names, in the columns' order.
        seed: of the bootstrap.
        basis: what the numbers rest on; without it, "N test items".

    Returns:
        accuracy (Clopper-Pearson), macro_f1, log_loss and ece (bootstrap), with tables and warnings.
    """
    return evaluate_repeated([(probabilities, labels)], names, seed=seed, basis=basis or _count_items(len(labels), "test item"))


def evaluate_repeated(
    repeats: Sequence[tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    *,
    seed: int,
    basis: str | None = None,
) -> Evaluation:
    """Evaluate by repeated cross-validation, where too few items are there to keep some back.

    Metrics are means over the repeats. The same items seen R times are no R times as many items: an item's correctness and
    loss are averaged over its repeats first, and intervals come from the N items. They tell of the items drawn, not of how
    much the fitted models differ, and so lean to the narrow side. The confusion matrix counts each item once, under the
    label it was given most often.

    Args:
        repeats: for each repeat (probabilities (N, K), labels (N,)) out of fold; the same items in the same order.
        names: K label names, in the columns' order.
        seed: of the bootstrap.
        basis: what the numbers rest on; without it, "cross-validation repeated R times over N items: …".

    Returns:
        accuracy, macro_f1, log_loss and ece, with tables and warnings.
    """
    labels = _check_single(repeats, names)
    num_items, num_classes = len(labels), len(names)
    scores = [np.asarray(probabilities) for probabilities, _ in repeats]
    predicted = np.stack([each.argmax(axis=1) for each in scores])
    losses = np.stack([metrics.item_log_losses(each, labels) for each in scores]).mean(axis=0)
    right = float((predicted == labels).mean(axis=0).sum())
    each_confusion = [metrics.count_confusion(labels, said, num_classes) for said in predicted]
    measured = {
        "accuracy": right / num_items,
        "macro_f1": float(np.mean([metrics.macro_f1(each) for each in each_confusion])),
        "log_loss": float(losses.mean()),
        "ece": float(np.mean([metrics.ece(each, labels) for each in scores])),
    }
    macro_draws = bootstrap_macro_f1(labels, predicted, num_classes, seed)
    intervals = {
        "accuracy": clopper_pearson(right, num_items),
        "macro_f1": widen_perfect(measured["macro_f1"], percentile_interval(macro_draws), num_items),
        "log_loss": bootstrap_mean(losses, seed),
        "ece": centred_interval(_draw_ece(scores, labels, seed), measured["ece"]),
    }
    confusion = each_confusion[0] if len(repeats) == 1 else metrics.count_confusion(labels, _vote(predicted), num_classes)
    baseline = _find_best_constant(labels, names)
    return Evaluation(
        task="single",
        num_items=num_items,
        metrics=measured,
        intervals=_as_lists(intervals),
        basis=basis or _describe_repeats(len(repeats), num_items),
        labels=tuple(names),
        per_class=tabulate_classes(metrics.score_classes(confusion), names),
        confusion=confusion,
        reliability=tabulate_reliability(np.mean(scores, axis=0) if len(scores) > 1 else scores[0], labels),
        majority=baseline,
        warnings=(
            *_warn_single(intervals["accuracy"], measured["accuracy"], baseline),
            *_warn_of_calibration(scores, measured["ece"]),
        ),
    )


def evaluate_multi(
    probabilities: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    *,
    seed: int,
    thresholds: np.ndarray | None = None,
    basis: str | None = None,
) -> Evaluation:
    """Evaluate a model that gives each item any number of labels.

    Args:
        probabilities: (N, K) float in [0, 1]; of items the model did not learn from.
        targets: (N, K) bool, the truth.
        names: K label names, in the columns' order.
        seed: of the bootstrap.
        thresholds: (K,) float; a label is given from this probability on. 0.5 for all without it.
        basis: what the numbers rest on; without it, "N test items".

    Returns:
        macro_f1, micro_f1 and mean_average_precision with bootstrap intervals, the per-label table and warnings.
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets, dtype=bool)
    _require_shape(probabilities, (len(targets), len(names)), "probabilities")
    _require_shape(targets, (len(targets), len(names)), "labels")
    predicted = probabilities >= (0.5 if thresholds is None else np.asarray(thresholds))
    measured = measure_multi(probabilities, targets, predicted)
    intervals = bound_multi(probabilities, targets, predicted, seed)
    scores = metrics.score_counts((targets & predicted).sum(axis=0), predicted.sum(axis=0), targets.sum(axis=0))
    given = targets.any(axis=0)
    chance = float(targets[:, given].mean()) if given.any() else 0.0
    warnings = []
    if intervals["mean_average_precision"][0] <= chance:
        warnings.append(
            f"no better than guessing by how frequent each label is (mean average precision "
            f"{measured['mean_average_precision']:.3f}, by chance {chance:.3f}): check preprocessing and labels."
        )
    return Evaluation(
        task="multi",
        num_items=len(targets),
        metrics=measured,
        intervals=_as_lists(intervals),
        basis=basis or _count_items(len(targets), "test item"),
        labels=tuple(names),
        per_class=tabulate_classes(scores, names),
        warnings=tuple(warnings),
    )


def evaluate_value(predictions: np.ndarray, targets: np.ndarray, *, seed: int, basis: str | None = None) -> Evaluation:
    """Evaluate a model that gives each item a number.

    Args:
        predictions: (N,) float, of items the model did not learn from.
        targets: (N,) float, the truth.
        seed: of the bootstrap.
        basis: what the numbers rest on; without it, "N test items".

    Returns:
        mae and rmse in the target's unit, and r2, with bootstrap intervals, and warnings.
    """
    predictions, targets = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    _require_shape(targets, (len(targets),), "targets")
    _require_shape(predictions, (len(targets),), "predictions")
    measured = {
        "mae": metrics.mae(predictions, targets),
        "rmse": metrics.rmse(predictions, targets),
        "r2": metrics.r2(predictions, targets),
    }
    errors, centred = predictions - targets, targets - targets.mean()
    columns = np.stack([np.abs(errors), errors**2, centred, centred**2], axis=1)
    absolute, square, mean, power = bootstrap_means(columns, seed).T
    spread = power - mean**2
    # A draw of one item over and over has no spread to explain; it says nothing about r2.
    telling = spread > 1e-12 * max(float(power.max()), 1e-300)
    shares = 1.0 - square[telling] / spread[telling] if telling.any() else np.array([measured["r2"]])
    intervals = {
        "mae": percentile_interval(absolute),
        "rmse": percentile_interval(np.sqrt(square)),
        "r2": percentile_interval(shares),
    }
    warnings = []
    if intervals["r2"][0] <= 0.0:
        warnings.append(
            f"not shown to be better than always answering the mean (r2 {measured['r2']:.3f}, 95 % interval "
            f"{intervals['r2'][0]:.3f} to {intervals['r2'][1]:.3f}): check preprocessing and the values."
        )
    return Evaluation(
        task="value",
        num_items=len(targets),
        metrics=measured,
        intervals=_as_lists(intervals),
        basis=basis or _count_items(len(targets), "test item"),
        warnings=tuple(warnings),
    )


def _check_single(repeats: Sequence[tuple[np.ndarray, np.ndarray]], names: Sequence[str]) -> np.ndarray:
    labels = np.asarray(repeats[0][1]) if repeats else np.zeros(0, dtype=np.int64)
    for probabilities, others in repeats:
        _require_shape(np.asarray(probabilities), (len(labels), len(names)), "probabilities")
        if not np.array_equal(labels, others):
            raise DataError(
                "the repeats do not tell of the same items: their labels differ.",
                expected="in every repeat the same items in the same order.",
                mend="put each repeat's out-of-fold probabilities back in the items' order.",
            )
    if not len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"{len(labels)} labels cannot be evaluated against {len(names)} classes.",
            expected=f"at least one label, each from 0 to {len(names) - 1}.",
            mend="encode the labels with the model's own label order.",
        )
    return labels


def _require_shape(values: np.ndarray, shape: tuple[int, ...], noun: str) -> None:
    if values.shape != shape or not len(values):
        raise DataError(
            f"{noun} have the shape {values.shape}.",
            expected=f"the shape {shape}, with at least one item.",
            mend="evaluate on at least one item, with one column for each of the model's labels.",
        )
    if not np.isfinite(values).all():
        raise DataError(
            f"{noun} contain NaN or infinity.",
            expected="finite numbers only.",
            mend="look for NaN or infinity in the features.",
        )


def _draw_ece(scores: list[np.ndarray], labels: np.ndarray, seed: int) -> np.ndarray:
    draws = [
        bootstrap_ece(metrics.calibration_gaps(each, labels), metrics.bin_confidences(each.max(axis=1)), seed)
        for each in scores
    ]
    return np.mean(draws, axis=0)


def _vote(predicted: np.ndarray) -> np.ndarray:
    """The answer given most often to each item, the lowest class index among equals."""
    return np.array([np.bincount(answers).argmax() for answers in predicted.T])


def _find_best_constant(labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The one label that would be right most often of these items, and how often."""
    counts = np.bincount(labels, minlength=len(names))
    return {"label": names[int(counts.argmax())], "accuracy": float(counts.max() / len(labels))}


def _warn_of_calibration(scores: Sequence[np.ndarray], measured: float) -> list[str]:
    """A warning where the calibration error is far larger than what perfect probabilities show by chance."""
    mean, deviation = metrics.chance_ece(scores[0])
    if measured <= max(LEAST_ECE, mean + ECE_DEVIATIONS * deviation):
        return []
    return [
        f"probabilities are not calibrated: expected calibration error {measured:.3f}, where chance gives about {mean:.3f}. "
        "Use the predicted labels, not how sure they are; compare the data that train with those that test."
    ]


def _warn_single(interval: Interval, accuracy: float, baseline: dict[str, Any]) -> list[str]:
    if interval[0] > baseline["accuracy"]:
        return []
    shares = (
        f"accuracy {accuracy:.3f}, 95 % interval {interval[0]:.3f} to {interval[1]:.3f}; "
        f"always the same answer gets {baseline['accuracy']:.3f}"
    )
    if accuracy > baseline["accuracy"]:
        told = "not shown to be better than"
        mend = "evaluate on more items, or check preprocessing and labels."
    else:
        told, mend = "no better than", "check preprocessing and labels."
    return [f"{told} always answering {baseline['label']!r} ({shares}): {mend}"]


def _describe_repeats(num_repeats: int, num_items: int) -> str:
    times = f" repeated {num_repeats} times" if num_repeats > 1 else ""
    return f"cross-validation{times} over {_count_items(num_items, 'item')}: an estimate, no separate test set"


def _count_items(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _as_lists(intervals: dict[str, Interval]) -> dict[str, list[float]]:
    return {name: [float(low), float(high)] for name, (low, high) in intervals.items()}
