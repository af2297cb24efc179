"""What a training begins with, made anew in each process of a comparison: network, head, data and plan, the same in all.

Nothing here is timed. The floor comes out of the feature store, and everything is drawn from the plan's seed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.backbones import locate, open_backbone
from headstart.config import FitSettings
from headstart.data.folds import split_off_valid
from headstart.data.source import read_with_findings
from headstart.data.split import split
from headstart.data.targets import encode_targets, labels_in
from headstart.features import compile_prefix, extract
from headstart.records import Sample, Splits
from headstart.runtime import num_cores
from headstart.select.floor import Floor, FloorPlan, find_floor
from headstart.select.rules import Circumstances, make_plan
from headstart.select.tuned import Ground, Prepared, build_network, prepare
from headstart.tuning.network import TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import TrainingSet

BACKBONE = "efficientnet-lite0"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A training about to begin."""

    ground: Ground
    floor: Floor
    plan: TuningPlan
    train_ids: tuple[str, ...]
    valid_ids: tuple[str, ...]

    @property
    def samples(self) -> Mapping[str, Sample]:
        """All items, by id."""
        return self.ground.dataset.by_id

    def prepare(self) -> AbstractContextManager[Prepared]:
        """Features at the cut, of every view, computed where they are not in the store."""
        return prepare(self.ground, self.plan)

    def network(self, prepared: Prepared) -> TunableNetwork:
        """The tail with the source's weights, and the floor's head."""
        return build_network(prepared, self.floor, self.train_ids, self.valid_ids)

    def training_set(self, ids: tuple[str, ...], inputs: Any) -> TrainingSet:
        """Some items with their labels."""
        targets = encode_targets(self.ground.dataset, ids, self.floor.labels)
        return TrainingSet(inputs=inputs, ids=ids, targets=targets, labels=self.floor.labels)


def make_start(table: Path, strategy: str, epochs: int) -> Start:
    """Read the data, find the floor of the items that train, and plan as the rules do, but for the average of the weights.

    Args:
        table: a split, as data/split_csv.py writes it.
        strategy: 'last:K' or 'full'.
        epochs: of the training.
    """
    torch.set_num_threads(num_cores())
    dataset = read_with_findings(table).dataset
    source = locate(BACKBONE)
    prefix = compile_prefix(source).wait()
    features = extract(prefix, prefix.spec.preprocess, dataset.samples)
    splits = split(dataset, seed=0, exclude=frozenset(features.failures))
    ground = Ground(
        source=source, backbone=open_backbone(BACKBONE), table=features, dataset=dataset, splits=splits, image_size=None
    )
    train_ids, valid_ids = split_off_valid(dataset, splits, splits.train, 0)
    labels = labels_in(dataset, train_ids)
    learning = Splits(train=train_ids, groups=splits.groups)
    floor = find_floor(features, dataset, learning, labels, FloorPlan(balance="none", seed=0))
    facts = Circumstances(
        num_items=len(splits.train), num_classes=len(labels), device="cpu", pretrained=True, transformer=False
    )
    plan = make_plan(strategy, facts, FitSettings(epochs=epochs))
    # An average and a choice of weights are no part of the comparison: the other side's loop has none.
    plan = TuningPlan(**plan.as_json() | {"averaging": "none", "interpolations": (1.0,), "hidden": (), "reasons": {}})
    return Start(ground=ground, floor=floor, plan=plan, train_ids=train_ids, valid_ids=valid_ids)


def read_words(usage: str | None, count: int) -> list[str]:
    """The words after a script's name, if they are as many as they should be."""
    if len(sys.argv) != count + 1:
        sys.exit(usage)
    return sys.argv[1:]
