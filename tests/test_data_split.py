import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.data.folds import cross_validation_folds, half_width, needs_cross_validation
from headstart.data.source import read
from headstart.data.split import split, write_splits_csv
from headstart.errors import DataError, SettingError
from headstart.records import Dataset, Sample
from test_data_folders import fill, three_parts

THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(samples, task="single"):
    labels = tuple(sorted({label for sample in samples for label in sample.labels}))
    return Dataset(samples=tuple(samples), labels=labels, task=task, modality="image", source="test")


def plain(**counts):
    return make([Sample(id=f"{c}/{i:03d}", item="x", labels=(c,)) for c, number in counts.items() for i in range(number)])


@st.composite
def datasets(draw):
    """Data of any task with some groups of the user's and of duplicates, mixed labels in both included."""
    task = draw(st.sampled_from(["single", "multi", "value"]))
    number = draw(st.integers(4, 40))
    labels = st.sampled_from("abc").map(lambda label: (label,))
    if task == "multi":
        labels = st.lists(st.sampled_from("abc"), unique=True, max_size=3).map(tuple)
    group = st.none() | st.sampled_from(["g1", "g2", "g3"])
    samples = [
        Sample(
            id=f"{i:02d}",
            item="x",
            labels=() if task == "value" else draw(labels),
            value=draw(st.floats(-5, 5)) if task == "value" else None,
            group=draw(group),
        )
        for i in range(number)
    ]
    copies = {s.id: draw(st.sampled_from(["d1", "d2", "d3"])) for s in samples if draw(st.integers(0, 5)) == 0}
    return make(samples, task), copies


def tied(dataset, copies):
    """The groups that must stay whole, by merging all that overlap."""
    sets = [{s.id} for s in dataset.samples]
    for name in ("g1", "g2", "g3"):
        sets.append({s.id for s in dataset.samples if s.group == name})
    for name in ("d1", "d2", "d3"):
        sets.append({key for key, value in copies.items() if value == name})
    merged = []
    for one in sets:
        touching = [other for other in merged if other & one]
        merged = [other for other in merged if not other & one] + [one.union(*touching)]
    return [one for one in merged if one]


@THOROUGH
@given(datasets(), st.integers(0, 5), st.data())
def test_split_invariants(case, seed, data):
    dataset, copies = case
    ids = [s.id for s in dataset.samples]
    pinned = frozenset(data.draw(st.lists(st.sampled_from(ids), max_size=3)))
    exclude = frozenset(data.draw(st.lists(st.sampled_from(ids), max_size=3)))
    if len(exclude) == len(ids):
        return
    splits = split(dataset, seed=seed, groups=copies, pinned_train=pinned, exclude=exclude)
    train, test = set(splits.train), set(splits.test)
    assert not train & test and train | test == set(ids) - exclude and not splits.valid
    assert pinned - exclude <= train
    left = replace(dataset, samples=tuple(s for s in dataset.samples if s.id not in exclude))
    for group in tied(left, {key: value for key, value in copies.items() if key not in exclude}):
        assert group <= train or group <= test, f"{group} is on both sides"
        if len(group) > 1:
            assert len({splits.groups[name] for name in group}) == 1
    for label in {label for s in left.samples for label in s.labels}:
        assert any(label in dataset.by_id[name].labels for name in train), f"{label} is not in train"
    order = data.draw(st.permutations(dataset.samples))
    again = split(replace(dataset, samples=tuple(order)), seed=seed, groups=copies, pinned_train=pinned, exclude=exclude)
    assert (set(again.train), set(again.test), again.groups, again.origin) == (train, test, splits.groups, splits.origin)


@THOROUGH
@given(datasets(), st.integers(0, 5), st.integers(2, 6), st.data())
def test_fold_invariants(case, seed, num_folds, data):
    dataset, copies = case
    ids = [s.id for s in dataset.samples]
    pinned = frozenset(data.draw(st.lists(st.sampled_from(ids), max_size=3)))
    folds = cross_validation_folds(
        dataset, ids, seed=seed, groups=copies, pinned_train=pinned, num_folds=num_folds, num_repeats=2
    )
    assert folds.shape == (2, len(ids)) and folds.dtype == np.int64
    assert folds.min() >= -1 and folds.max() < num_folds
    fold_of = [dict(zip(ids, repeat.tolist(), strict=True)) for repeat in folds]
    for repeat in fold_of:
        assert all(repeat[name] == -1 for name in pinned)
        for group in tied(dataset, copies):
            assert len({repeat[name] for name in group}) == 1
        for label in dataset.labels:
            holders = {repeat[s.id] for s in dataset.samples if label in s.labels}
            assert -1 in holders or len(holders) > 1, f"{label} has nothing to learn from"
    order = data.draw(st.permutations(dataset.samples))
    names = [s.id for s in order]
    again = cross_validation_folds(
        replace(dataset, samples=tuple(order)),
        names,
        seed=seed,
        groups=copies,
        pinned_train=pinned,
        num_folds=num_folds,
        num_repeats=2,
    )
    assert [dict(zip(names, repeat.tolist(), strict=True)) for repeat in again] == fold_of


def test_a_fifth_of_every_class_is_held_out():
    splits = split(plain(a=100, b=50, c=23, d=5, e=2), seed=0)
    assert Counter(name[0] for name in splits.test) == {"a": 20, "b": 10, "c": 5, "d": 1, "e": 1}
    assert splits.origin == "random 80/20, seed 0"
    assert Counter(name[0] for name in split(plain(a=100, b=50), seed=0, test_fraction=0.5).test) == {"a": 50, "b": 25}
    with pytest.raises(SettingError) as error:
        split(plain(a=9, b=9), seed=0, test_fraction=20)
    three_parts(error, "20", "between 0 and 1")


def test_seeds_differ_and_repeat():
    data = plain(a=50, b=50)
    assert split(data, seed=1) == split(data, seed=1)
    assert set(split(data, seed=1).test) != set(split(data, seed=2).test)
    picked = Counter(name for seed in range(200) for name in split(data, seed=seed).test)
    # Each is picked Binomial(200, 0.2) times: 40 ± 5.7; five deviations hold for a hundred of them.
    assert len(picked) == 100 and 11 <= min(picked.values()) and max(picked.values()) <= 69


def test_groups_keep_the_shares_of_the_classes():
    samples = [Sample(id=f"{c}{i:03d}", item="x", labels=(c,), group=f"{c}{i // 4}") for c in "abc" for i in range(60)]
    splits = split(make(samples), seed=3)
    counts = Counter(name[0] for name in splits.test)
    assert all(abs(counts[c] - 12) <= 2 for c in "abc")
    assert "by group" in splits.origin


def test_values_are_stratified():
    samples = [Sample(id=f"{i:03d}", item="x", value=float(i)) for i in range(200)]
    splits = split(make(samples, "value"), seed=0)
    tenths = Counter(int(name) // 20 for name in splits.test)
    assert set(tenths.values()) == {4} and len(tenths) == 10


def test_a_class_in_one_group_stays_in_train_and_is_told():
    samples = [Sample(id=f"a{i}", item="x", labels=("a",), group="one") for i in range(10)]
    splits = split(make([*samples, *plain(b=10).samples]), seed=0)
    assert {name[0] for name in splits.test} == {"b"}
    assert "nothing of 'a' could be held out" in splits.origin


def test_when_nothing_can_be_held_out_the_origin_says_why():
    samples = [Sample(id=f"{c}{i}", item="x", labels=(c,), group="all") for c in "ab" for i in range(9)]
    splits = split(make(samples), seed=0)
    assert splits.test == () and len(splits.train) == 18 and "no test split is possible" in splits.origin
    data = plain(a=9, b=9)
    splits = split(data, seed=0, pinned_train=frozenset(data.by_id))
    assert splits.test == () and "pinned" in splits.origin


def with_splits(**sides):
    return make(
        [
            Sample(id=f"{side}/{c}{i}", item="x", labels=(c,), split=None if side == "none" else side)
            for side, number in sides.items()
            for c in "ab"
            for i in range(number)
        ]
    )


def test_the_official_split_is_kept():
    splits = split(with_splits(train=5, valid=2, test=3, none=1), seed=0)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (12, 4, 6)
    assert splits.origin == "the data's own test split"
    assert all(name.startswith("test/") for name in splits.test)


def test_valid_is_the_test_split_where_there_is_no_other():
    splits = split(with_splits(train=5, valid=2), seed=0)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (10, 0, 4)
    assert "valid split, used as test" in splits.origin


def test_a_train_folder_alone_is_split_at_random():
    assert split(with_splits(train=10), seed=0).origin.startswith("random")


def test_pinned_samples_leave_the_official_test_split_and_excluded_ones_everything():
    splits = split(
        with_splits(train=5, test=3), seed=0, pinned_train=frozenset({"test/a0"}), exclude=frozenset({"test/b0", "train/a0"})
    )
    assert "test/a0" in splits.train and len(splits.test) == 4 and "less 1 sample" in splits.origin
    assert not {"test/b0", "train/a0"} & {*splits.train, *splits.test}


def test_data_of_test_samples_only_is_refused():
    with pytest.raises(DataError) as error:
        split(with_splits(test=3), seed=0)
    three_parts(error, "nothing is left to train on", "6 samples")


def test_when_cross_validation_is_needed():
    enough = plain(a=27, b=26)
    assert needs_cross_validation(enough, list(enough.by_id)) is None
    for small in (
        plain(a=25, b=25),
        plain(a=26, b=26),
        make([Sample(id=f"{i}", item="x", value=1.0) for i in range(50)], "value"),
    ):
        assert "too few" in needs_cross_validation(small, list(small.by_id))
    rare = plain(a=50, b=4, c=5)
    assert needs_cross_validation(rare, list(rare.by_id)) == "1 class with fewer than 5 samples: 'b' (4)"
    values = make([Sample(id=f"{i}", item="x", value=1.0) for i in range(60)], "value")
    assert needs_cross_validation(values, list(values.by_id)) is None


@pytest.mark.parametrize("num_test", [5, 10, 12, 20, 43, 100])
def test_the_half_width_is_that_of_the_normal_approximation(num_test):
    from scipy.stats import norm

    assert half_width(num_test) == pytest.approx(norm.ppf(0.975) * np.sqrt(0.5 * 0.5 / num_test), rel=1e-3)


def test_folds_are_even_by_class_and_repeats_differ():
    data = plain(a=50, b=15, c=3)
    folds = cross_validation_folds(data, list(data.by_id), seed=0, num_repeats=3)
    labels = np.array([name[0] for name in data.by_id])
    for repeat in folds:
        for label, low, high in (("a", 10, 10), ("b", 3, 3), ("c", 0, 1)):
            counts = np.bincount(repeat[labels == label], minlength=5)
            assert counts.min() == low and counts.max() == high
        sizes = np.bincount(repeat, minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert (folds[0] != folds[1]).any() and (folds[1] != folds[2]).any()
    with pytest.raises(SettingError) as error:
        cross_validation_folds(data, list(data.by_id), seed=0, num_folds=1)
    three_parts(error, "num_folds=1", "at least 2")


def test_splits_csv_round_trip_of_hostile_texts(tmp_path):
    texts = ["a,b", 'q"q', "two\nlines", "<script>", "😀", "../x", "-1", "=2", "back\\slash"]
    pairs = [(f"{text} {i}", text) for i, text in enumerate(texts * 3)]
    data = read(pairs)
    splits = split(data, seed=0, groups={"row-000000": "g", "row-000009": "g"})
    write_splits_csv(tmp_path / "splits.csv", data, splits)
    with (tmp_path / "splits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "item", "label", "group", "split"]
    assert [(row["id"], row["item"], row["label"]) for row in rows] == [(s.id, s.item, s.labels[0]) for s in data.samples]
    assert {row["id"] for row in rows if row["split"] == "test"} == set(splits.test)
    assert rows[0]["group"] == rows[9]["group"] == "duplicates of row-000000"
    again = read(tmp_path / "splits.csv")
    assert again.labels == data.labels
    assert {s.item for s in again.samples if s.split == "test"} == {data.by_id[name].item for name in splits.test}


def test_splits_csv_of_files_of_several_labels_and_of_values(tmp_path):
    fill(tmp_path, *(f"d/{c}/{i}.jpg" for c in "ab" for i in range(5)))
    data = read(tmp_path / "d")
    write_splits_csv(tmp_path / "d" / "s.csv", data, split(data, seed=0, exclude=frozenset({"a/0.jpg"})))
    assert str(tmp_path) not in (tmp_path / "d" / "s.csv").read_text()
    again = read(tmp_path / "d" / "s.csv")
    assert {s.item for s in again.samples} == {s.item for s in data.samples if s.id != "a/0.jpg"}
    multi = read([("x", ["a", "b"]), ("y", ["a|z", "b"]), ("z", ["a"]), ("w", ["b"])])
    write_splits_csv(tmp_path / "m.csv", multi, split(multi, seed=0))
    with (tmp_path / "m.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a|b", '["a|z", "b"]', "a", "b"]
    value = read([(b"\xff\xd8", 1.5), (b"\xff\xd9", 2)], task="value")
    write_splits_csv(tmp_path / "v.csv", value, split(value, seed=0))
    with (tmp_path / "v.csv").open(encoding="utf-8") as file:
        assert [(row["item"], row["label"]) for row in csv.DictReader(file)] == [("", "1.5"), ("", "2.0")]
