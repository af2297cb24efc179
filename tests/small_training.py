"""Trainings that take milliseconds: a head on a few features, and a head behind two convolutions."""

import numpy as np
import torch
from torch import nn

from headstart.tuning.inputs import FeatureInputs
from headstart.tuning.loop import tune
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet

NUM_TRAIN, NUM_VALID, WIDTH = 48, 24, 6
LABELS = ("cat", "dog", "newt")


class MapInputs:
    """Maps of 3 x 6 x 6, by id."""

    def __init__(self, maps):
        self.maps = maps

    def load(self, ids, view):
        rows = [int(id_.partition("-")[2]) for id_ in ids]
        return self.maps[rows], np.empty((len(rows), 0), np.float32)


class SmallTail(nn.Module):
    """Two convolutions with a norm between; the second one's mean over positions is what the head sees."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, WIDTH, 3))

    def forward(self, state, pooled):
        return self.network(state).mean((2, 3))


def features_and_targets(task="single"):
    """Features that tell the class but for some noise, and the targets of a task."""
    random = np.random.default_rng(7)
    classes = np.arange(NUM_TRAIN + NUM_VALID) % len(LABELS)
    means = random.normal(0, 1.5, (len(LABELS), WIDTH))
    features = (means[classes] + random.normal(0, 1, (len(classes), WIDTH))).astype(np.float32)
    targets = {"single": classes, "multi": np.eye(3)[classes], "value": 10 + 3 * features[:, 0].astype(np.float64)}
    return features, targets[task]


def train_head(*callbacks, task="single", spoil=None, checkpoint=None, **plan):
    """Train a linear head on features; `spoil` is an item's number whose features are then infinite."""
    features, targets = features_and_targets(task)
    num_outputs = 1 if task == "value" else len(LABELS)
    network = TunableNetwork(None, _head(features, num_outputs), columns=slice(0, WIDTH))
    if spoil is not None:
        features[spoil] = np.inf
    inputs = FeatureInputs(features=features, rows={f"item-{row}": row for row in range(len(features))})
    return _train(network, inputs, targets, task, callbacks, checkpoint, plan)


def train_tail(*callbacks, **plan):
    """Train two convolutions and a linear head on maps."""
    features, targets = features_and_targets()
    maps = np.random.default_rng(8).normal(0, 0.3, (len(features), 3, 6, 6)).astype(np.float32)
    maps += features[:, :3, None, None]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tail = SmallTail()
    network = TunableNetwork(tail, _head(features, len(LABELS)), columns=slice(0, WIDTH))
    return _train(network, MapInputs(maps), targets, "single", callbacks, None, plan)


def _head(features, num_outputs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TrainedHead(features, nn.Sequential(nn.Linear(WIDTH, num_outputs)))


def _train(network, inputs, targets, task, callbacks, checkpoint, plan):
    def items(first, end):
        ids = tuple(f"item-{row}" for row in range(first, end))
        return TrainingSet(inputs=inputs, ids=ids, targets=targets[first:end], labels=LABELS)

    numbers = {"epochs": 5, "batch_size": 12, "head_rate": 0.05, "backbone_rate": 0.01} | plan
    made = TuningPlan(strategy="head", **numbers)
    sets = (items(0, NUM_TRAIN), items(NUM_TRAIN, NUM_TRAIN + NUM_VALID))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is done sooner by one than shared out
    try:
        return network, tune(network, *sets, task=task, plan=made, callbacks=callbacks, checkpoint=checkpoint)
    finally:
        torch.set_num_threads(threads)
