"""One strategy, tried: its inputs made ready once, then a network trained on them as often as there are folds."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from headstart.backbones.catalog import BackboneSource
from headstart.backbones.parts import AnyBackbone, Tail, pooled_tail
from headstart.backbones.sounds import SoundTail
from headstart.backbones.texts import TextTail
from headstart.data.folds import split_off_valid
from headstart.data.targets import encode_targets
from headstart.features import FeatureTable
from headstart.features.compile import compile_prefix
from headstart.features.extract import PLAIN, Progress
from headstart.features.lengths import PaddedPrefix, longest_length, most_windows
from headstart.features.states import open_states
from headstart.heads.linear import LinearHead
from headstart.heads.ridge import balanced_class_weights
from headstart.preprocess.audio import AudioPreprocess
from headstart.preprocess.image import ImagePreprocess
from headstart.records import Dataset, Splits
from headstart.select.floor import Floor, FloorPlan, find_floor
from headstart.select.futility import LEAST_TO_TELL, StopIfWorse
from headstart.select.hidden import HiddenHead, train_hidden
from headstart.select.rules import HEAD_RATE, SHARE_BY_PAIRS
from headstart.select.scoring import calibrated_loss
from headstart.tuning.augment import Augmentation
from headstart.tuning.averaging import interpolated
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.stopping import EarlyStopping, kept_epoch
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.inputs import Inputs, ItemInputs, StateInputs
from headstart.tuning.loop import Outcome, tune
from headstart.tuning.lora import adapt_linear_layers
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.sound_augment import SoundAugmentation
from headstart.tuning.training import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every strategy stands on."""

    source: BackboneSource
    backbone: AnyBackbone
    table: FeatureTable
    """Features of all items by the frozen network."""
    dataset: Dataset
    splits: Splits
    image_size: int | None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A strategy with its inputs at hand."""

    ground: Ground
    plan: TuningPlan
    cut: str | None
    """The last frozen block; None where the whole network is tuned."""
    inputs: Inputs
    tail: Tail
    """With the source's weights; copied for each training."""
    note: str
    """What the user should hear of the store."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that was trained, with the weights that validation chose."""

    network: TunableNetwork
    outcome: Outcome
    start: Floor
    """Whose head it began with."""
    kept_epoch: int | None
    """The number, from 0, of the epoch whose weights are the tuned ones; None where they are of no one epoch."""
    given_up: bool
    """Whether it was ended half way, since it did worse than what it began with."""
    share: float
    """Of the tuned weights, against those it began with."""
    valid_ids: tuple[str, ...]
    valid_loss: float
    start_loss: float
    """On the same items, of the weights it began with."""


def cut_before(backbone: AnyBackbone, strategy: str) -> str | None:
    """The block that a strategy cuts behind; None for none."""
    weighty = [block.name for block in backbone.info.blocks if block.num_parameters]
    if strategy == "contrastive":
        count = round(len(weighty) * SHARE_BY_PAIRS)
        if backbone.why_untraced or not 1 <= count < len(weighty):
            return None
    elif strategy.startswith("last:"):
        count = int(strategy.removeprefix("last:"))
    else:
        return None
    first = weighty[-count]
    return backbone.blocks[backbone.blocks.index(first) - 1]


@contextmanager
def prepare(ground: Ground, plan: TuningPlan, progress: Progress | None = None) -> Iterator[Prepared]:
    """Make a strategy's inputs ready: the frozen part runs once for every item that trains, and for each of its views.

    Args:
        ground: what it stands on.
        plan: of the strategy.
        progress: told of the items done.

    Yields:
        The strategy, to be trained.
    """
    table, dataset = ground.table, ground.dataset
    cut = cut_before(ground.backbone, plan.strategy)
    preprocess = table.preprocess
    augmentation: Augmentation | SoundAugmentation | None = None  # texts have no views
    if isinstance(preprocess, ImagePreprocess):
        augmentation = Augmentation(flip=plan.mirrored, fill=preprocess.pad_color, seed=plan.seed)
    elif isinstance(preprocess, AudioPreprocess):
        augmentation = SoundAugmentation(seed=plan.seed)
    views = augmentation.view_names(plan.num_views) if augmentation else ()
    learning = (*ground.splits.train, *ground.splits.valid)
    digests = {id_: bytes.fromhex(table.hashes[id_]) for id_ in learning}
    tail = pooled_tail(ground.backbone, cut)
    if cut is None:
        items = ItemInputs(
            preprocess=table.preprocess, samples=dataset.by_id, digests=digests, augmentation=augmentation, views=views
        )
        if isinstance(tail, TextTail) and ground.source.static:
            tail.train_tokens(np.concatenate([items.load([id_], None)[0].ravel() for id_ in learning]))
        yield Prepared(ground=ground, plan=plan, cut=None, inputs=items, tail=tail, note="")
        return
    prefix = compile_prefix(ground.source, image_size=ground.image_size, cut=cut).wait()
    if isinstance(tail, TextTail):
        length = longest_length(table.preprocess, [dataset.by_id[id_] for id_ in learning], tail.max_tokens)
        prefix = PaddedPrefix(prefix, length)
    if isinstance(tail, SoundTail):
        prefix = PaddedPrefix(prefix, most_windows(table.preprocess, [dataset.by_id[id_] for id_ in learning]))
    opened = open_states(prefix, table.preprocess, dataset.by_id, digests, num_views=1 + len(views), augment=augmentation)
    with opened as reader:
        reader.fill(learning, (PLAIN, *views), progress)
        inputs = StateInputs(reader=reader, views=views)
        yield Prepared(ground=ground, plan=plan, cut=cut, inputs=inputs, tail=tail, note=reader.note)


def train_from_floor(
    prepared: Prepared,
    floor_plan: FloorPlan,
    labels: tuple[str, ...],
    ids: Sequence[str],
    **how: Any,  # noqa: ANN401 - as `train`
) -> Trained:
    """Find the floor of some items, less those that epochs and interpolation are chosen on, and train on from it.

    Args:
        prepared: the strategy.
        floor_plan: how the floor is sought.
        labels: K labels, in order.
        ids: of the items that may be learned from.
        **how: what else `train` takes.

    Returns:
        The trained network.
    """
    ground = prepared.ground
    learning, valid = split_off_valid(ground.dataset, ground.splits, ids, floor_plan.seed)
    alone = replace(floor_plan, classical=False)
    floor = find_floor(ground.table, ground.dataset, replace(ground.splits, train=learning), labels, alone)
    return train(prepared, floor, learning, valid, **how)


def train(
    prepared: Prepared,
    floor: Floor,
    train_ids: Sequence[str],
    valid_ids: Sequence[str],
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    may_stop: bool = False,
) -> Trained:
    """Train a strategy's network from a floor's head on, and choose how far to go from there.

    Args:
        prepared: the strategy.
        floor: fitted on `train_ids`, and so no judge's favourite.
        train_ids: what is learned from.
        valid_ids: what epochs and interpolation are chosen on.
        callbacks: told of every step.
        checkpoint: where to keep the state, if anywhere.
        may_stop: end early where it does worse than what it began with.

    Returns:
        The trained network.
    """
    task, plan, floor = prepared.ground.dataset.task, prepared.plan, floor.network_alone
    network = build_network(prepared, floor, train_ids, valid_ids)
    sets = [training_set(prepared, floor, ids) for ids in (train_ids, valid_ids)]
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    losses = {0.0: calibrated_loss(network, sets[1], task)}
    futility = StopIfWorse(lambda: calibrated_loss(network, sets[1], task), losses[0.0], plan.epochs)
    if may_stop and len(valid_ids) >= LEAST_TO_TELL:
        callbacks = (futility, *callbacks)
    if plan.patience:  # of every training, so that the gate judges what is then done
        callbacks = (EarlyStopping(patience=plan.patience), *callbacks)
    outcome = tune(network, *sets, task=task, plan=plan, callbacks=callbacks, checkpoint=checkpoint)
    for share in plan.interpolations:
        network.load_state_dict(interpolated(start, outcome.weights, share))
        losses[share] = calibrated_loss(network, sets[1], task)
    best = min(plan.interpolations, key=lambda share: losses[share])
    network.load_state_dict(interpolated(start, outcome.weights, best))
    return Trained(
        network=network,
        outcome=outcome,
        start=floor,
        kept_epoch=kept_epoch(callbacks, len(outcome.history)),
        given_up=futility.stopped,
        share=best,
        valid_ids=tuple(valid_ids),
        valid_loss=losses[best],
        start_loss=losses[0.0],
    )


def build_network(prepared: Prepared, floor: Floor, ids: Sequence[str], valid_ids: Sequence[str]) -> TunableNetwork:
    """The network as training begins: the source's tail, and the floor's head with its temperature.

    Args:
        prepared: the strategy.
        floor: whose head it is.
        ids: of the items that train.
        valid_ids: of those that a training is watched on.
    """
    table, plan = prepared.ground.table, prepared.plan
    head = _first_head(prepared, floor, ids, valid_ids)
    tail = copy.deepcopy(prepared.tail)
    if plan.strategy == "lora":
        adapt_linear_layers(tail, plan, prepared.ground.backbone.info.name)
    columns = table.spec.columns(floor.block)
    network = TunableNetwork(tail, head, columns=columns, norm_statistics=plan.norm_statistics)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _first_head(prepared: Prepared, floor: Floor, ids: Sequence[str], valid_ids: Sequence[str]) -> TrainedHead:
    """The head that training begins with, on the network's own features."""
    table, dataset, plan = prepared.ground.table, prepared.ground.dataset, prepared.plan
    features = table.features(floor.block, ids)
    if plan.norm_statistics == "updated":
        # Untrained features change beyond recognition in the first steps, and with them whatever was solved on them.
        values = encode_targets(dataset, ids, floor.labels) if dataset.task == "value" else None
        return TrainedHead.from_scratch(features, max(len(floor.labels), 1), plan=plan, values=values)
    if plan.hidden:
        # It has no exact solution to begin with, and is trained on the frozen features first.
        alone = replace(plan, strategy="head", head_rate=HEAD_RATE, num_views=0, mixup=0.0, cutmix=0.0, l2_sp=0.0)
        task = HiddenHead(table=table, dataset=dataset, block=floor.block, labels=floor.labels, plan=alone)
        return train_hidden(task, ids, valid_ids).head
    assert isinstance(floor.head, LinearHead), "a floor's head is an exact one"
    return TrainedHead.from_exact(features, floor.head, floor.calibration.temperatures)


def training_set(prepared: Prepared, floor: Floor, ids: Sequence[str]) -> TrainingSet:
    """Some items with their targets and class weights, for a training.

    Args:
        prepared: the strategy.
        floor: for the labels.
        ids: of the items.
    """
    dataset = prepared.ground.dataset
    targets = encode_targets(dataset, ids, floor.labels)
    weights = None
    if prepared.plan.balance != "none" and dataset.task == "single":
        weights = balanced_class_weights(targets, len(floor.labels))
    return TrainingSet(inputs=prepared.inputs, ids=tuple(ids), targets=targets, class_weights=weights, labels=floor.labels)
