"""Whether mirror images mean the same is asked of the data."""

import numpy as np
import pytest
from PIL import Image

from headstart.data.targets import labels_in
from headstart.features import extract
from headstart.records import Dataset, Sample, Splits
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.mirror import mirror_keeps_labels

SIDE = 64


def slanted(random, leaning):
    """Stripes that lean to the left or to the right, which a mirror turns into each other."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    way = columns + rows if leaning == "left" else columns - rows
    pixels = np.where((way + random.integers(0, 16)) // 8 % 2, 220, 30) + random.integers(-25, 26, (SIDE, SIDE))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def stripes(random, across):
    """Stripes up and down or from side to side, which a mirror leaves as they are."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    way = rows if across == "across" else columns
    pixels = np.where((way + random.integers(0, 16)) // 8 % 2, 220, 30) + random.integers(-25, 26, (SIDE, SIDE))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    ("draw", "labels", "keeps"), [(slanted, ("left", "right"), False), (stripes, ("across", "down"), True)]
)
def test_views_are_mirrored_only_where_labels_survive_it(prefix, draw, labels, keeps):
    random = np.random.default_rng(3)
    samples = tuple(
        Sample(id=f"{number}", item=draw(random, labels[number % 2]), labels=(labels[number % 2],)) for number in range(40)
    )
    dataset = Dataset(samples=samples, labels=labels, task="single", modality="image", source="drawn")
    table = extract(prefix, prefix.spec.preprocess.with_geometry("pad"), samples)
    splits = Splits(train=table.ids)
    plan = FloorPlan(balance="none", seed=0)
    floor = find_floor(table, dataset, splits, labels_in(dataset, table.ids), plan)
    assert floor.choice.chosen.cv_accuracy > 0.9
    found, why = mirror_keeps_labels(prefix, table, dataset, splits, plan)
    assert found == keeps
    held = int(why.split()[1])
    assert 12 <= held <= 16 and why.startswith(f"of {held} unseen training items ")
