"""A head with hidden layers on frozen features: trained by the loop that trains networks, with no tail. Loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.targets import encode_targets
from headstart.features import FeatureTable
from headstart.heads.ridge import balanced_class_weights
from headstart.records import Dataset
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.stopping import EarlyStopping
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.inputs import FeatureInputs
from headstart.tuning.loop import Outcome, tune
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet


@dataclass(frozen=True, kw_only=True)
class HiddenHead:
    """A head to be trained, and what it stands on."""

    table: FeatureTable
    """Features of all items by the frozen network."""
    dataset: Dataset
    block: str
    """Whose features it takes."""
    labels: tuple[str, ...]
    plan: TuningPlan
    """With the hidden layers."""


@dataclass(frozen=True, kw_only=True)
class TrainedHidden:
    """A head that was trained."""

    head: TrainedHead
    outcome: Outcome


def train_hidden(
    task: HiddenHead,
    train_ids: Sequence[str],
    valid_ids: Sequence[str],
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> TrainedHidden:
    """Train a head with hidden layers on features that stay as they are.

    Args:
        task: the head.
        train_ids: what is learned from.
        valid_ids: what the training is watched on.
        callbacks: told of every step.
        checkpoint: where to keep the state, if anywhere.

    Returns:
        The head, in evaluation mode.
    """
    features, plan = task.table.features(task.block, train_ids), task.plan
    targets = encode_targets(task.dataset, train_ids, task.labels)
    values = targets if task.dataset.task == "value" else None
    head = TrainedHead.with_hidden(features, max(len(task.labels), 1), plan=plan, values=values)
    network = TunableNetwork(None, head, columns=slice(None))
    if plan.patience:
        callbacks = (EarlyStopping(patience=plan.patience), *callbacks)
    sets = [_training_set(task, ids) for ids in (train_ids, valid_ids)]
    outcome = tune(network, *sets, task=task.dataset.task, plan=plan, callbacks=callbacks, checkpoint=checkpoint)
    network.load_state_dict(outcome.weights)
    network.cpu().eval()
    return TrainedHidden(head=head, outcome=outcome)


def _training_set(task: HiddenHead, ids: Sequence[str]) -> TrainingSet:
    targets = encode_targets(task.dataset, ids, task.labels)
    weights = None
    if task.plan.balance != "none" and task.dataset.task == "single":
        weights = balanced_class_weights(targets, len(task.labels))
    rows = {id_: row for row, id_ in enumerate(ids)}
    inputs = FeatureInputs(features=task.table.features(task.block, ids).astype(np.float32, copy=False), rows=rows)
    return TrainingSet(inputs=inputs, ids=tuple(ids), targets=targets, class_weights=weights, labels=task.labels)
