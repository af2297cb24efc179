"""A small convolutional network and small data to train it on, for the tests of tuning, in this process and in others."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.cutting import Frozen
from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.backbones.pooling import PooledTail
from headstart.backbones.tracing import trace
from headstart.preprocess.image import ImagePreprocess
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.loop import tune
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet

SIDE, NUM_CLASSES = 8, 3


class Toy(nn.Module):
    """Four blocks; the last normalises vectors, so that a batch of one has no statistics."""

    def __init__(self, dropout):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout))
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8))

    def forward(self, pixels):
        return self.neck(self.deep(self.body(self.stem(pixels))))


def toy_backbone(dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Toy(dropout)
        # Statistics that are no longer those of an untrained network.
        for _ in range(20):
            network(torch.randn(16, 3, SIDE, SIDE) * 2 + 1)
    frozen = Frozen(network)
    traced = trace(network, lambda size: torch.zeros(size, 3, SIDE, SIDE))
    blocks = tuple(BlockInfo(name=b.name, width=b.shape[0], num_parameters=b.num_parameters) for b in traced.blocks)
    info = BackboneInfo(
        name="toy",
        architecture="toy",
        modality="image",
        licence="",
        source="",
        sha256="",
        width=8,
        num_parameters=0,
        blocks=blocks,
    )
    return Backbone(info=info, preprocess=ImagePreprocess(image_size=SIDE), network=frozen, traced=traced)


@dataclass(frozen=True)
class Arrays:
    """Inputs in memory; a view adds noise that follows from row and view."""

    states: np.ndarray
    pooled: np.ndarray

    def load(self, ids, view):
        rows = [int(id_) for id_ in ids]
        states = self.states[rows].copy()
        if view is not None:
            for place, row in enumerate(rows):
                states[place] += 0.3 * np.random.default_rng([row, view]).standard_normal(states.shape[1:], np.float32)
        return states, self.pooled[rows]


def toy_set(count, *, seed=0, task="single", weights=None):
    random = np.random.default_rng(seed)
    targets = random.integers(0, NUM_CLASSES, count)
    states = random.standard_normal((count, 3, SIDE, SIDE), np.float32)
    states += targets[:, None, None, None].astype(np.float32) * np.array([0.6, -0.3, 0.4], np.float32)[None, :, None, None]
    if task == "multi":
        targets = (random.random((count, NUM_CLASSES)) < 0.4).astype(np.int64)
    elif task == "value":
        targets = targets * 10.0 + random.standard_normal(count)
    inputs = Arrays(states, np.empty((count, 0), np.float32))
    return TrainingSet(inputs=inputs, ids=tuple(map(str, range(count))), targets=targets, class_weights=weights)


def toy_network(plan, *, dropout=0.0, outputs=NUM_CLASSES):
    backbone = toy_backbone(dropout)
    tail = PooledTail(backbone, None)
    state, pooled = toy_set(32, seed=5).inputs.load([str(row) for row in range(32)], None)
    with torch.no_grad():
        features = tail.eval()(torch.from_numpy(state), torch.from_numpy(pooled)).numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = TrainedHead(features, nn.Sequential(nn.Linear(features.shape[1], outputs)))
    return TunableNetwork(tail, head, columns=slice(0, features.shape[1]), norm_statistics=plan.norm_statistics)


def toy_plan(**changes):
    plan = TuningPlan(strategy="full", epochs=2, batch_size=8, head_rate=1e-2, backbone_rate=5e-3, block_decay=0.8)
    return replace(plan, **changes)


# Everything at once that could make a resumed training differ.
BUSY = toy_plan(
    epochs=6,
    num_views=2,
    mixup=0.4,
    cutmix=0.4,
    label_smoothing=0.1,
    balance="sampler",
    norm_statistics="updated",
    weight_decay=0.02,
    l2_sp=0.01,
    unfreeze_every=1,
)


class Counter(Callback):
    """Remembers what it was told across a resume, and lowers the rate as it goes."""

    def __init__(self):
        self.batches, self.told = 0, []

    def on_epoch_begin(self, epoch, logs):
        self.told.append(self.model.learning_rate)

    def on_batch_end(self, batch, logs):
        self.batches += 1

    def on_epoch_end(self, epoch, logs):
        self.model.rate_factor *= 0.9
        logs["batches"] = self.batches

    def on_train_end(self, logs):
        self.optimiser = self.model.optimiser.state_dict()

    def state(self):
        return {"batches": self.batches, "told": self.told}

    def restore(self, state):
        self.batches, self.told = state["batches"], state["told"]


def train_busy(plan, callbacks, checkpoint=None):
    """Train with all that `BUSY` asks for, and dropout."""
    train = toy_set(45, weights=np.array([1.0, 2.0, 0.5]))
    network = toy_network(plan, dropout=0.3)
    return tune(network, train, toy_set(20, seed=1), task="single", plan=plan, callbacks=callbacks, checkpoint=checkpoint)
