"""Whether a mirror image still means the same: true of flowers, false of digits and road signs; asked of the data."""

from __future__ import annotations

from headstart.data.targets import encode_targets
from headstart.features import FeatureTable, extract
from headstart.features.extract import FLIPPED
from headstart.features.prefix import Prefix
from headstart.records import Dataset, Splits
from headstart.select.floor import Floor

MOST_ITEMS = 200
# How much more often than other items mirrored ones may be mistaken.
TOLERANCE = 0.1


def mirror_keeps_labels(
    prefix: Prefix, table: FeatureTable, dataset: Dataset, splits: Splits, floor: Floor
) -> tuple[bool, str]:
    """Ask whether training items, mirrored left to right, are still taken for what they are.

    Args:
        prefix: that made the features.
        table: of all items.
        dataset: the samples.
        splits: who trains.
        floor: the head that is asked.

    Returns:
        Whether views may be mirrored, and why.
    """
    if FLIPPED in table.views:
        return True, "mirrored features helped the floor"
    expected = floor.choice.chosen.cv_accuracy
    if dataset.task != "single" or expected is None:
        return False, "only asked where each item has one label"
    ids = splits.train[:: -(-len(splits.train) // MOST_ITEMS)]
    mirrored = extract(prefix, table.preprocess, [dataset.by_id[id_] for id_ in ids], views=(FLIPPED,))
    said = floor.head.scores(mirrored.features(floor.block)).argmax(axis=1)
    right = float((said == encode_targets(dataset, mirrored.ids, floor.labels)).mean())
    told = (
        f"of {len(mirrored.ids)} training items {right:.0%} are recognised mirrored, {expected:.0%} of unseen ones as they are"
    )
    return right >= expected - TOLERANCE, told
