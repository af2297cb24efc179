"""Marks for out-of-fold scores, and the comparison of two candidates row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.heads.candidates import Contest
from headstart.heads.folds import known_rows
from headstart.heads.temperature import fit_label_temperatures, fit_temperature, log_losses, yes_no_losses
from headstart.records import Task


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How one candidate did."""

    losses: np.ndarray
    """(N,) float64: the criterion of each row."""
    temperature: float
    """Fitted on the same scores; of labels that do not exclude each other the geometric mean."""
    accuracy: float | None
    log_loss: float | None
    rmse: float | None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What is needed to mark any candidate of one contest."""

    task: Task
    targets: np.ndarray
    weights: np.ndarray
    """(N,) float64 with mean 1; 0 for rows that are not known."""
    known: np.ndarray
    """(N,) bool: whether the rows outside a row's fold have enough of its class (`known_rows`); others do not count."""
    clusters: np.ndarray | None
    """(N,) int64: the group of each row, whose losses move together; None if each row stands for itself."""
    scale: np.ndarray
    """(T,): the deviation of each target (value task), so that targets in different units count alike."""

    @classmethod
    def open(cls, contest: Contest, folds: np.ndarray, groups: np.ndarray | None) -> Judge:
        """Make the judge of a contest.

        Args:
            contest: the posed contest.
            folds: (N,) int64.
            groups: (N,) or None.

        Returns:
            The judge.
        """
        return cls.of(contest.task, contest.targets, folds, groups, class_weights=contest.class_weights)

    @classmethod
    def of(
        cls,
        task: Task,
        targets: np.ndarray,
        folds: np.ndarray,
        groups: np.ndarray | None,
        *,
        class_weights: np.ndarray | None = None,
    ) -> Judge:
        """Make the judge of any scores.

        Args:
            task: what they tell.
            targets: (N,) int64 in [0, K) (single), (N, K) of 0 and 1 (multi), (N, T) (value).
            folds: (N,) int64.
            groups: (N,) or None.
            class_weights: (K,), for the single task; equal if left out.

        Returns:
            The judge.
        """
        known = known_rows(targets, folds, task=task)
        weights = known.astype(np.float64)
        scale = np.ones(1)
        if task == "single" and class_weights is not None:
            weights *= class_weights[targets]
        elif task == "value":
            scale = np.where(targets.std(axis=0) > 0, targets.std(axis=0), 1)
        clusters = None if groups is None else np.unique(groups, return_inverse=True)[1]
        return cls(task=task, targets=targets, weights=weights / weights.mean(), known=known, clusters=clusters, scale=scale)

    def mark(self, scores: np.ndarray) -> Mark:
        """Mark out-of-fold scores.

        Args:
            scores: (N, K).

        Returns:
            The mark.
        """
        targets, weights, known = self.targets, self.weights, self.known
        match self.task:
            case "single":
                temperature = fit_temperature(scores, targets, weights)
                losses = log_losses(scores / temperature, targets)
                accuracy = float((scores.argmax(axis=1) == targets)[known].mean())
            case "multi":
                temperatures = fit_label_temperatures(scores[known], targets[known] > 0)
                losses = yes_no_losses(scores / temperatures, targets).mean(axis=1)
                accuracy = float(((scores > 0) == (targets > 0))[known].mean())
                temperature = float(np.exp(np.log(temperatures).mean()))
            case "value":
                losses = np.square((scores - targets) / self.scale).mean(axis=1)
                rmse = float(np.sqrt(np.square(scores - targets).mean()))
                return Mark(losses=losses, temperature=1.0, accuracy=None, log_loss=None, rmse=rmse)
        log_loss = float((losses * weights).mean())
        return Mark(losses=losses, temperature=temperature, accuracy=accuracy, log_loss=log_loss, rmse=None)

    def criterion(self, mark: Mark) -> float:
        """The number to be small: the weighted mean loss.

        Args:
            mark: of one candidate.

        Returns:
            Nats, or the share of the targets' variance (value task).
        """
        return float((mark.losses * self.weights).mean())

    def compare(self, mark: Mark, best: Mark) -> tuple[float, float]:
        """How much worse one candidate is than another on the same rows.

        Args:
            mark: of the one.
            best: of the other.

        Returns:
            The mean difference of the criterion, and its standard error over rows or groups.
        """
        return mean_and_error((mark.losses - best.losses) * self.weights, self.clusters)


def mean_and_error(differences: np.ndarray, clusters: np.ndarray | None) -> tuple[float, float]:
    """The mean of paired differences, and its standard error.

    Args:
        differences: (N,) float64, of each row.
        clusters: (N,) int64 from 0 on, the group of each row, whose differences move together; None if no row has one.

    Returns:
        Mean and standard error; infinite for a single row or group.
    """
    mean = float(differences.mean())
    deviations = differences - mean
    if clusters is not None:
        deviations = np.bincount(clusters, weights=deviations).astype(np.float64)
    count = len(deviations)
    if count < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(np.square(deviations).sum() * count / (count - 1)) / len(differences))
