"""Iterative stratification: parts have their shares of every label, checked by counting, whatever the labels and groups."""

import numpy as np
import pytest

from headstart.api.content import label_counts
from headstart.data.folds import cross_validation_folds
from headstart.data.split import split
from headstart.data.stratify import LabelledUnits, stratify
from headstart.heads.folds import make_folds
from headstart.records import Dataset, Sample, Splits
from headstart.report.page import _gather_origins

SHARES = (0.1, 0.15, 0.28, 0.4, 0.5, 0.6)
LABELS = tuple("abcdef")


def scenes(seed, num_items=480, groups=None, shares=SHARES):
    """Items with labels that are independent of each other: some have none, some have all."""
    table = np.random.default_rng(seed).random((num_items, len(shares))) < shares
    samples = tuple(
        Sample(
            id=f"{row:04d}",
            item="x",
            labels=tuple(label for label, has in zip(LABELS, has_label, strict=False) if has),
            group=None if groups is None else groups(row),
        )
        for row, has_label in enumerate(table)
    )
    return Dataset(samples=samples, labels=LABELS[: len(shares)], task="multi", modality="image", source="test"), table


def share_gaps(table, ids, others):
    """By how much each label's share differs between two sides; the last is that of items without a label."""
    table = np.column_stack([table, ~table.any(axis=1)])
    one, other = (table[[int(name) for name in side]].mean(axis=0) for side in (ids, others))
    return np.abs(one - other)


@pytest.mark.parametrize("seed", range(5))
def test_every_labels_share_is_the_same_in_train_and_test(seed):
    data, table = scenes(seed)
    splits = split(data, seed=seed)
    assert share_gaps(table, splits.train, splits.test).max() <= 0.03
    assert 94 <= len(splits.test) <= 98


@pytest.mark.parametrize(
    ("kind", "groups", "pinned"),
    [
        ("groups of five", lambda row: f"g{row // 5}", ()),
        ("a few large groups", lambda row: f"g{row // 24}" if row < 240 else None, ()),
        ("pinned to train", None, range(72)),
    ],
)
def test_shares_agree_with_groups_and_with_items_that_must_train(kind, groups, pinned):
    data, table = scenes(7, groups=groups)
    pinned = frozenset(f"{row:04d}" for row in pinned)
    splits = split(data, seed=0, pinned_train=pinned)
    assert share_gaps(table, splits.train, splits.test).max() <= 0.03, kind
    assert pinned <= set(splits.train)
    group_of = {sample.id: sample.group for sample in data.samples if sample.group}
    assert not {group_of.get(name) for name in splits.train} & {group_of.get(name) for name in splits.test} - {None}


def test_labels_that_go_together_and_exclude_each_other_are_even_too():
    random = np.random.default_rng(3)
    first = random.random(400) < 0.3
    table = np.column_stack([first, first & (random.random(400) < 0.7), ~first, random.random(400) < 0.12])
    samples = tuple(
        Sample(id=f"{row:04d}", item="x", labels=tuple(np.array(LABELS)[:4][has].tolist())) for row, has in enumerate(table)
    )
    data = Dataset(samples=samples, labels=LABELS[:4], task="multi", modality="image", source="test")
    splits = split(data, seed=0)
    assert share_gaps(table, splits.train, splits.test).max() <= 0.03


@pytest.mark.parametrize("which", ["evaluation", "heads"])
def test_every_labels_share_is_the_same_in_every_fold(which):
    data, table = scenes(1)
    if which == "heads":
        folds = make_folds(table.astype(float), task="multi", seed=0)
    else:
        (folds,) = cross_validation_folds(data, list(data.by_id), seed=0)
    for fold in range(5):
        inside, outside = (np.flatnonzero(mask).tolist() for mask in (folds == fold, folds != fold))
        assert share_gaps(table, inside, outside).max() <= 0.03
    assert np.ptp(np.bincount(folds)) <= 4


def test_folds_of_groups_keep_them_whole_and_no_fold_is_empty():
    _, table = scenes(2, 120)
    groups = np.arange(120) // 6
    folds = make_folds(table.astype(float), task="multi", seed=0, groups=groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(20))
    assert set(folds) == set(range(5))
    few = make_folds(np.ones((6, 2)), task="multi", seed=0, groups=np.array([0, 0, 0, 0, 1, 2]))
    assert sorted(set(few.tolist())) == [0, 1, 2]


def test_a_label_of_one_group_stays_in_train():
    data, _ = scenes(4, 100)
    rare = tuple(Sample(id=f"r{i}", item="x", labels=("a", "z"), group="one") for i in range(6))
    lone = (Sample(id="s0", item="x", labels=("b", "y")),)
    data = Dataset(
        samples=(*data.samples, *rare, *lone), labels=(*LABELS, "y", "z"), task="multi", modality="image", source="t"
    )
    for seed in range(5):
        assert {"r0", "s0"} <= set(split(data, seed=seed).train)


def test_parts_of_any_share_get_what_they_want():
    _, table = scenes(5, 300)
    strata = [np.flatnonzero(has) if has.any() else np.array([6]) for has in table]
    units = LabelledUnits(
        strata=strata, counts=[np.ones(len(own), np.int64) for own in strata], sizes=np.ones(300, np.int64), num_strata=7
    )
    wanted = np.array([0.6, 0.3, 0.1])[:, None] * units.totals()
    parts = stratify(units, wanted, np.random.default_rng(0))
    reached = np.array(
        [[sum(label in strata[unit] for unit in np.flatnonzero(parts == part)) for label in range(7)] for part in range(3)]
    )
    assert np.abs(reached - wanted).max() <= 3
    np.testing.assert_array_equal(parts, stratify(units, wanted, np.random.default_rng(0)))


def test_the_report_has_the_share_of_each_label_on_both_sides():
    data, table = scenes(0, 50)
    splits = Splits(train=tuple(list(data.by_id)[:40]), test=tuple(list(data.by_id)[40:]))
    told = label_counts(data, splits)
    for column, row in enumerate(told["classes"]):
        assert (row["train"], row["test"]) == (table[:40, column].sum(), table[40:, column].sum())
        assert row["train_share"] == pytest.approx(table[:40, column].mean(), abs=1e-4)
        assert row["test_share"] == pytest.approx(table[40:, column].mean(), abs=1e-4)
    bare = ~table.any(axis=1)
    assert (told["without_labels"]["train"], told["without_labels"]["test"]) == (bare[:40].sum(), bare[40:].sum())
    rows = _gather_origins({"summary": {}, "data": told})["classes"]
    assert rows[0]["test_percent"].startswith(f"{100 * told['classes'][0]['test_share']:.0f}") and len(rows) == 7
    plain = Dataset(
        samples=(Sample(id="p", item="x", labels=("a",)),), labels=("a",), task="single", modality="image", source="t"
    )
    assert label_counts(plain, Splits(train=("p",))) == {"classes": [{"label": "a", "train": 1, "test": 0}]}
