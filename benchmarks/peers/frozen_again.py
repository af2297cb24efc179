"""The same training with the frozen part in the loop, as everybody writes it: plain torch, eager, default allocator.

Same items, views, batches, order, tail, head, rates and optimiser as benchmarks/tune_epochs.py; but every picture is decoded,
augmented and sent through the whole network in every epoch, for training and for validation. Nothing of headstart's loop,
store, compiled networks, memory formats or allocator settings is used.

Usage: python benchmarks/peers/frozen_again.py SPLIT.csv EPOCHS
prints one JSON line: {"epoch_seconds", "train_loss", "valid_loss", "load_seconds"}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from headstart.backbones.pooling import PooledPrefix, PooledTail
from headstart.select.tuned import Prepared, cut_before
from headstart.tuning.augment import Augmentation
from headstart.tuning.optimiser import learning_rate_share, make_optimiser
from headstart.tuning.training import epoch_order, in_batches
from start import Start, make_start, read_words

STRATEGY = "last:2"


class Loop:
    """A training loop as tutorials have it, with the frozen part in it."""

    def __init__(self, start: Start) -> None:
        self.start, self.plan, table = start, start.plan, start.ground.table
        backbone = start.ground.backbone
        cut = cut_before(backbone, STRATEGY)
        self.frozen, tail = PooledPrefix(backbone, cut).eval(), PooledTail(backbone, cut)
        self.shape = tail.state_shape
        prepared = Prepared(ground=start.ground, plan=self.plan, cut=cut, inputs=None, tail=tail, note="")
        self.network = start.network(prepared)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.contiguous()  # as torch lays it out by itself
        self.optimiser = make_optimiser(self.network, self.plan)
        self.preprocess = table.preprocess
        self.augmentation = Augmentation(flip=self.plan.mirrored, fill=table.preprocess.pad_color, seed=self.plan.seed)
        self.views = self.augmentation.view_names(self.plan.num_views)
        self.digests = {id_: bytes.fromhex(digest) for id_, digest in table.hashes.items()}
        self.train, self.valid = (start.training_set(ids, None) for ids in (start.train_ids, start.valid_ids))
        self.loss_of = torch.nn.CrossEntropyLoss(label_smoothing=self.plan.label_smoothing)
        self.plain_loss_of = torch.nn.CrossEntropyLoss(reduction="sum")
        self.load_seconds = 0.0

    def load(self, ids, view: str | None) -> torch.Tensor:
        """Decode, augment and normalise pictures: (B, 3, H, W) float32."""
        began = time.perf_counter()
        pixels = [self.preprocess.pixels(self.start.samples[id_].item, name=id_) for id_ in ids]
        if view is not None:
            pixels = [self.augmentation(few, self.digests[id_], view) for few, id_ in zip(pixels, ids, strict=True)]
        batch = torch.from_numpy(self.preprocess.normalise(np.stack(pixels)))
        self.load_seconds += time.perf_counter() - began
        return batch

    def scores(self, pixels: torch.Tensor) -> torch.Tensor:
        """The frozen part without gradients, then tail and head: (B, K)."""
        with torch.no_grad():
            rows = self.frozen(pixels)
        columns = int(np.prod(self.shape))
        return self.network(rows[:, :columns].reshape(len(rows), *self.shape), rows[:, columns:])

    def run_epoch(self, epoch: int) -> float:
        """Train for an epoch; gives the mean loss."""
        plan, total = self.plan, 0.0
        self.network.train()
        batches = in_batches(epoch_order(len(self.train.ids), seed=plan.seed, epoch=epoch), plan.batch_size)
        view = self.views[epoch % len(self.views)]
        for number, rows in enumerate(batches):
            share = learning_rate_share((epoch + number / len(batches)) / plan.epochs, plan)
            for group in self.optimiser.param_groups:
                group["lr"] = plan.head_rate * share * group["share"]
            pixels = self.load([self.train.ids[row] for row in rows], view)
            loss = self.loss_of(self.scores(pixels), torch.from_numpy(self.train.targets[rows]))
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), plan.max_gradient_norm)
            self.optimiser.step()
            total += float(loss.detach()) * len(rows)
        return total / len(self.train.ids)

    def validate(self) -> float:
        """The mean loss of the validation items."""
        self.network.eval()
        total = 0.0
        with torch.no_grad():
            for rows in in_batches(np.arange(len(self.valid.ids)), 2 * self.plan.batch_size):
                pixels = self.load([self.valid.ids[row] for row in rows], None)
                total += float(self.plain_loss_of(self.scores(pixels), torch.from_numpy(self.valid.targets[rows])))
        return total / len(self.valid.ids)


def main(table: str, epochs: int) -> None:
    loop = Loop(make_start(Path(table), STRATEGY, epochs))
    told: dict[str, list[float]] = {"epoch_seconds": [], "train_loss": [], "valid_loss": []}
    for epoch in range(epochs):
        began = time.perf_counter()
        told["train_loss"].append(loop.run_epoch(epoch))
        told["valid_loss"].append(loop.validate())
        told["epoch_seconds"].append(time.perf_counter() - began)
    print(json.dumps(told | {"load_seconds": loop.load_seconds}))


if __name__ == "__main__":
    words = read_words(__doc__, 2)
    main(words[0], int(words[1]))
