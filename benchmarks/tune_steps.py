"""Our side: steps of training a whole EfficientNet-lite0 with headstart's own loop, on batches that lie in memory.

Usage: python benchmarks/tune_steps.py BATCHES.npz
prints one JSON line: {"step_seconds", "losses"}; steps are timed from the first hook of a batch to its last.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from headstart.backbones import open_backbone
from headstart.backbones.pooling import PooledTail
from headstart.runtime import num_cores, raise_malloc_thresholds
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.loop import tune
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet, epoch_order, in_batches
from start import BACKBONE, read_words


class Stopwatch(Callback):
    """Seconds and loss of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_batch_begin(self, batch, logs) -> None:
        """A step begins."""
        self.began = time.perf_counter()

    def on_batch_end(self, batch, logs) -> None:
        """It ended."""
        self.seconds.append(time.perf_counter() - self.began)
        self.losses.append(logs["loss"])


class InMemory:
    """Batches as they were drawn beforehand, whatever order the loop goes through its items in."""

    def __init__(self, pixels: np.ndarray, order: np.ndarray) -> None:
        self.pixels, self.row_of = pixels, {str(item): row for row, item in enumerate(order)}

    def load(self, ids, view) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (B, 3, H, W) of the items, and no pooled features."""
        return self.pixels[[self.row_of[id_] for id_ in ids]], np.empty((len(ids), 0), np.float32)


def make_network(head_weight: np.ndarray) -> TunableNetwork:
    """The whole network as a tail, in the memory format that `select.tuned` puts it in, and a linear head."""
    backbone = open_backbone(BACKBONE)
    tail = PooledTail(backbone, None)
    width = backbone.info.width
    as_they_are = np.tile(np.array([[-1.0], [1.0]]), width)  # mean 0 and deviation 1: nothing is standardised
    head = TrainedHead(as_they_are, nn.Sequential(nn.Linear(width, len(head_weight))))
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.from_numpy(head_weight))
        head.layers[0].bias.zero_()
        all_blocks = tail.eval()(torch.zeros(1, 3, 224, 224), torch.empty(1, 0)).shape[1]
    network = TunableNetwork(tail, head, columns=slice(all_blocks - width, all_blocks))
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def main(path: Path) -> None:
    torch.set_num_threads(num_cores())
    raise_malloc_thresholds()
    given = np.load(path)
    pixels, labels, batch_size = given["pixels"], given["labels"], int(given["batch_size"])
    rates = {"head_rate": float(given["rate"]), "backbone_rate": float(given["rate"]), "warm_up": 0.0}
    plan = TuningPlan(strategy="full", epochs=1, batch_size=batch_size, **rates)
    # Both sides see the first batch first: what the loop draws as its n-th item is the n-th of those in memory.
    order = epoch_order(len(labels), seed=plan.seed, epoch=0)
    targets = np.empty_like(labels)
    targets[order] = labels
    inputs = InMemory(pixels, order)
    ids = tuple(map(str, range(len(labels))))
    assert all(len(batch) == batch_size for batch in in_batches(order, batch_size))
    watch = Stopwatch()
    train = TrainingSet(inputs=inputs, ids=ids, targets=targets)
    valid = TrainingSet(inputs=inputs, ids=ids[:2], targets=targets[:2])
    tune(make_network(given["head"]), train, valid, task="single", plan=plan, callbacks=[watch])
    print(json.dumps({"step_seconds": watch.seconds, "losses": watch.losses}))


if __name__ == "__main__":
    main(Path(read_words(__doc__, 1)[0]))
