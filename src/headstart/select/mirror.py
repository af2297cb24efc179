"""Whether a mirror image still means the same: true of flowers, false of digits and road signs; asked of the data."""

from __future__ import annotations

from dataclasses import replace

from headstart.data.folds import cross_validation_folds
from headstart.data.targets import encode_targets, labels_in
from headstart.features import FeatureTable, extract
from headstart.features.extract import FLIPPED
from headstart.features.prefix import Prefix
from headstart.records import Dataset, Splits
from headstart.select.floor import FloorPlan, find_floor

MOST_ITEMS = 200
NUM_PARTS = 3
# How much more often than other items mirrored ones may be mistaken.
TOLERANCE = 0.1


def mirror_keeps_labels(
    prefix: Prefix, table: FeatureTable, dataset: Dataset, splits: Splits, plan: FloorPlan
) -> tuple[bool, str]:
    """Ask whether training items that a floor has not seen are taken for what they are when mirrored left to right.

    Args:
        prefix: that made the features.
        table: of all items.
        dataset: the samples.
        splits: who trains.
        plan: how the floor of the other items is sought.

    Returns:
        Whether views may be mirrored, and why.
    """
    if FLIPPED in table.views:
        return True, "mirrored features helped the floor"
    if dataset.task != "single":
        return False, "only asked where each item has one label"
    (folds,) = cross_validation_folds(dataset, splits.train, seed=plan.seed, groups=splits.groups, num_folds=NUM_PARTS)
    # A floor that has learned an item knows its mirror image, too, whatever the label is worth.
    held = [id_ for id_, part in zip(splits.train, folds, strict=True) if part == 0][:MOST_ITEMS]
    rest = tuple(id_ for id_, part in zip(splits.train, folds, strict=True) if part != 0)
    labels = labels_in(dataset, rest)
    held = [id_ for id_ in held if dataset.by_id[id_].labels[0] in labels]
    floor = find_floor(table, dataset, replace(splits, train=rest), labels, replace(plan, classical=False))
    truth = encode_targets(dataset, held, labels)
    mirrored = extract(prefix, table.preprocess, [dataset.by_id[id_] for id_ in held], views=(FLIPPED,))
    right, expected = (
        float((floor.head.scores(given.features(floor.block, held)).argmax(axis=1) == truth).mean())
        for given in (mirrored, table)
    )
    told = f"of {len(held)} unseen training items {right:.0%} are recognised mirrored, {expected:.0%} as they are"
    return right >= expected - TOLERANCE, told
