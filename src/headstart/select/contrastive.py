"""The strategy `contrastive`: features learned from pairs of texts, then the head solved on them. Loads torch."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.data.targets import encode_targets
from headstart.heads.linear import LinearHead
from headstart.records import Dataset
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.rules import MOST_PAIR_STEPS
from headstart.select.scoring import scores_of
from headstart.select.tuned import Prepared, Trained, train_from_floor
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.stopping import EarlyStopping, kept_epoch
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.contrastive import network_of_features
from headstart.tuning.loop import tune
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.training import TrainingSet

# Of the items that train, how many an epoch is watched on, where the data bring none for that: few labels are all needed, and
# what is seen of a few of them tells whether it goes down.
WATCHED = 8


def train_strategy(
    prepared: Prepared,
    floor_plan: FloorPlan,
    labels: tuple[str, ...],
    ids: Sequence[str],
    **how: Any,  # noqa: ANN401 - as `train`
) -> Trained:
    """Train a strategy's network on some items: by their pairs where it says so, else from the floor's head on.

    Args:
        prepared: the strategy.
        floor_plan: how heads are sought.
        labels: K labels, in order.
        ids: of the items that may be learned from.
        **how: callbacks, checkpoint and may_stop, as of `train`.

    Returns:
        The trained network.
    """
    if not prepared.plan.by_pairs:
        return train_from_floor(prepared, floor_plan, labels, ids, **how)
    return train_by_pairs(prepared, floor_plan, labels, ids, **how)


def train_by_pairs(
    prepared: Prepared,
    floor_plan: FloorPlan,
    labels: tuple[str, ...],
    ids: Sequence[str],
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    may_stop: bool = False,
) -> Trained:
    """Draw the features of a label's items together, then solve a head on what they have become.

    The head's cross-validation has seen features that were learned with every item's label, so what it says is of use for the
    penalty alone; how sure the answers are is learned from items that were held out.

    Args:
        prepared: the strategy.
        floor_plan: how the head is sought.
        labels: K labels, in order.
        ids: of the items that are learned from, all of them.
        callbacks: told of every step.
        checkpoint: where to keep the state, if anywhere.
        may_stop: of no effect: there is no loss before the training to compare with.

    Returns:
        The tuned network with its head; `start` is the floor on the tuned features.
    """
    ground, plan = prepared.ground, prepared.plan
    watched = ground.splits.valid or _some_pairs(ground.dataset, ids, floor_plan.seed)
    tail, width = copy.deepcopy(prepared.tail), ground.table.spec.widths("last")[0]
    network = network_of_features(tail, ground.table.spec.columns("last"), width)
    sets = [
        TrainingSet(
            inputs=prepared.inputs, ids=tuple(some), targets=encode_targets(ground.dataset, some, labels), labels=labels
        )
        for some in (ids, watched)
    ]
    if plan.patience:
        callbacks = (EarlyStopping(patience=plan.patience), *callbacks)
    if checkpoint is not None:
        # Writing takes as long as a step, and all the steps take seconds.
        checkpoint = replace(checkpoint, every=max(1, MOST_PAIR_STEPS * plan.batch_size // len(ids)))
    outcome = tune(network, *sets, task="single", plan=plan, callbacks=callbacks, checkpoint=checkpoint)
    network.load_state_dict(outcome.weights)
    start, head = _solve_head(prepared, replace(floor_plan, classical=False), network, tuple(ids), labels)
    losses = [float(row["valid_loss"]) for row in outcome.history]
    return Trained(
        network=TunableNetwork(tail, head, columns=ground.table.spec.columns(start.block)),
        outcome=outcome,
        start=start,
        kept_epoch=kept_epoch(callbacks, len(outcome.history)),
        given_up=False,
        share=1.0,
        valid_ids=tuple(watched),
        valid_loss=losses[-1],
        start_loss=losses[0],
    )


def _some_pairs(dataset: Dataset, ids: Sequence[str], seed: int) -> tuple[str, ...]:
    """Two items of a label, of as many labels as it takes."""
    of_label: dict[str, list[str]] = defaultdict(list)
    for place in np.random.default_rng(seed).permutation(len(ids)):
        of_label[dataset.by_id[ids[place]].labels[0]].append(ids[place])
    return tuple(id_ for few in of_label.values() for id_ in few[:2])[:WATCHED]


def _solve_head(
    prepared: Prepared, plan: FloorPlan, network: TunableNetwork, ids: tuple[str, ...], labels: tuple[str, ...]
) -> tuple[Any, TrainedHead]:
    """The floor on the tuned features of some items, and its head as part of a network."""
    ground = prepared.ground
    assert network.tail is not None, "pairs tune a tail"
    whole = network_of_features(network.tail, slice(None), ground.table.spec.width)
    vectors = scores_of(whole, prepared.inputs, ids).astype(np.float32)
    table = replace(ground.table, ids=ids, vectors=vectors[:, None], views=ground.table.views[:1], terms=None)
    floor = find_floor(table, ground.dataset, replace(ground.splits, train=ids), labels, plan)
    assert isinstance(floor.head, LinearHead), "a floor's head is an exact one"
    features = table.features(floor.block, ids)
    return floor, TrainedHead.from_exact(features, floor.head, floor.calibration.temperatures)
