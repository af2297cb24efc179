"""Choices asked of the data: geometry, blocks, class weights; kept only where they pay, and never asked of the test items."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from exact import solve
from headstart.data.targets import encode_targets
from headstart.features import FeatureTable
from headstart.features.extract import extract
from headstart.features.store import info
from headstart.records import Dataset, Sample, Splits
from headstart.runtime import cache_root
from headstart.select.floor import FloorPlan, find_floor, question
from headstart.select.geometry import choose_geometry, contestants
from headstart.select.trial import Contestants, Trial, better, hold_trial


def dataset_of(labels, *, task="single", items=None, splits=None):
    items = items or [None] * len(labels)
    samples = tuple(
        Sample(
            id=f"item {number:03d}",
            item=item,
            labels=() if task == "value" else (label,),
            value=label if task == "value" else None,
            split=splits[number] if splits else None,
        )
        for number, (item, label) in enumerate(zip(items, labels, strict=True))
    )
    names = () if task == "value" else tuple(sorted(set(labels)))
    return Dataset(samples=samples, labels=names, task=task, modality="image", source="made up")


def table_of(spec, dataset, vectors):
    ids = tuple(sample.id for sample in dataset.samples)
    return FeatureTable(
        ids=ids, vectors=vectors[:, None].astype(np.float32), views=("",), spec=spec, preprocess=spec.preprocess,
        hashes={}, failures={}, hits=0, misses=len(ids), seconds=1.0,
    )  # fmt: skip


def trial_of(losses, name="one"):
    return Trial(name=name, losses=np.array(losses, float), score=0.5)


@pytest.fixture
def random():
    return np.random.default_rng(0)


# Trials


def test_better_takes_more_than_one_standard_error(random):
    base = random.normal(1.0, 0.5, 400)
    noise = random.normal(0.0, 1.0, 400)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 20
    for gain, wins in ((1.1 * error, True), (0.9 * error, False), (-1.1 * error, False), (0.0, False)):
        assert better(trial_of(base - noise - gain), trial_of(base))[0] is wins


def test_better_pairs_the_items(random):
    """A small steady gain shows, however much the items differ among themselves."""
    base = random.normal(5.0, 3.0, 50)
    wins, told = better(trial_of(base - 0.01, "new"), trial_of(base, "old"))
    assert wins
    assert told.startswith("new against old: loss lower by 0.0100 ± 0.0000")
    assert better(trial_of(base, "old"), trial_of(base - 0.01, "new"))[1].startswith("old against new: loss higher by 0.0100 ±")


def test_better_never_prefers_the_same():
    assert not better(trial_of([1.0, 2.0]), trial_of([1.0, 2.0]))[0]
    assert not better(trial_of([0.5]), trial_of([1.0]))[0]  # one item has no standard error


@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_a_trial_tells_features_that_know_from_those_that_do_not(random, task):
    hidden = random.normal(size=(120, 3))
    targets = {
        "single": hidden.argmax(axis=1),
        "multi": (hidden > 0).astype(np.float32),
        "value": hidden[:, 0] * 3 + 1,
    }[task]
    items = Contestants(task=task, targets=targets, num_classes=0 if task == "value" else 3)
    telling = np.concatenate([hidden, random.normal(size=(120, 20))], axis=1).astype(np.float32)
    silent = random.normal(size=(120, 23)).astype(np.float32)
    good, bad = (hold_trial(name, each, (23,), items, seed=0) for name, each in (("good", telling), ("bad", silent)))
    assert good.losses.shape == bad.losses.shape == (120,)
    assert better(good, bad)[0] and not better(bad, good)[0]
    assert good.score > bad.score + 0.2
    assert good.as_json() == {"name": "good", "score": round(good.score, 4), "note": f"loss {good.loss:.4f}"}
    again = hold_trial("good", telling, (23,), items, seed=0)
    np.testing.assert_array_equal(again.losses, good.losses)


def test_a_trial_of_values_scores_the_share_explained(random):
    known = random.normal(size=200)
    targets = 2 * known + random.normal(size=200)
    items = Contestants(task="value", targets=targets, num_classes=0)
    features = np.stack([known, random.normal(size=200)], axis=1).astype(np.float32)
    trial = hold_trial("x", features, (2,), items, seed=0)
    assert trial.score == pytest.approx(1 - trial.losses.mean() / targets.var())
    assert trial.score == pytest.approx(0.8, abs=0.08)  # four fifths of the variance are known


def test_contestants_need_two_classes():
    dataset = dataset_of(["a", "a", "b"])
    assert contestants(dataset, ["item 000", "item 001"]) is None
    both = contestants(dataset, ["item 000", "item 002"], {"item 000": "g"})
    assert both.num_classes == 2
    assert both.targets.tolist() == [0, 1]
    assert both.groups.tolist() == ["g", "\0item 002"]
    assert contestants(dataset_of([1.0, 2.0], task="value"), ["item 000"]).targets.tolist() == [1.0]


# The floor


@pytest.fixture(scope="module")
def spec(prefix):
    return prefix.spec


def vectors_with(spec, random, signal, block):
    """Features of all blocks: noise, and in some columns of one block what tells the classes."""
    vectors = random.normal(size=(len(signal), spec.width))
    start = spec.columns(block).start
    vectors[:, start : start + signal.shape[1]] += signal
    return vectors


@pytest.mark.parametrize(("block", "kept"), [("last", "last"), ("blocks.2", "multi")])
def test_the_floor_stands_on_the_features_that_tell(spec, random, block, kept):
    labels = np.arange(120) % 3
    dataset = dataset_of([f"class {label}" for label in labels])
    table = table_of(spec, dataset, vectors_with(spec, random, 4 * np.eye(3)[labels].repeat(4, axis=1), block))
    splits = Splits(train=table.ids[:90], test=table.ids[90:])
    floor = find_floor(table, dataset, splits, dataset.labels, FloorPlan(balance="auto", seed=0))
    assert floor.block == kept
    asked = floor.choices[0]
    assert asked["question"].startswith("features") and asked["kept"] == kept
    assert [candidate["name"] for candidate in asked["candidates"]] == ["last", "multi"]
    answers = floor.answers_to(table, splits.test, "single")
    np.testing.assert_allclose(answers.sum(axis=1), 1)
    assert (answers.argmax(axis=1) == encode_targets(dataset, splits.test, dataset.labels)).mean() > 0.9
    assert floor.choices[-1]["question"] == "head" and floor.choices[-1]["kept"] == floor.head.kind


def test_the_floor_does_not_look_at_test_items(spec, random):
    """Other features and other labels of the test items change nothing."""
    labels = np.arange(100) % 2
    signal = 2 * np.eye(2)[labels].repeat(4, axis=1)
    vectors = vectors_with(spec, random, signal, "last")
    floors = []
    for change in (0, 1):
        mixed = np.concatenate([labels[:80], labels[80:] ^ change])
        dataset = dataset_of([f"class {label}" for label in mixed])
        moved = np.concatenate([vectors[:80], vectors[80:] * (1 + 9 * change)])
        table = table_of(spec, dataset, moved)
        splits = Splits(train=table.ids[:80], test=table.ids[80:])
        floors.append(find_floor(table, dataset, splits, dataset.labels, FloorPlan(balance="auto", seed=0)))
    np.testing.assert_array_equal(floors[0].head.weight, floors[1].head.weight)
    np.testing.assert_array_equal(floors[0].calibration.temperatures, floors[1].calibration.temperatures)
    assert floors[0].choices == floors[1].choices


def test_class_weights_are_asked_of_the_data_and_lift_the_rare_class(spec, random):
    labels = np.array([0] * 110 + [1] * 10)
    dataset = dataset_of([f"class {label}" for label in labels])
    table = table_of(spec, dataset, vectors_with(spec, random, 1.5 * np.eye(2)[labels].repeat(6, axis=1), "last"))
    splits = Splits(train=table.ids)
    recall = {}
    for balance in ("none", "weights", "auto"):
        floor = find_floor(table, dataset, splits, dataset.labels, FloorPlan(balance=balance, seed=0))
        said = floor.choice.scores.argmax(axis=1)
        rare = labels[floor.choice.rows] == 1
        recall[balance] = (said[rare] == 1).mean()
        asked = [choice for choice in floor.choices if choice["question"] == "class weights"]
        assert len(asked) == (balance != "none")
    assert recall["weights"] >= recall["none"]
    assert [candidate["name"] for candidate in asked[0]["candidates"]] == ["none", "weights"]
    assert recall["auto"] == recall[asked[0]["kept"]]


def test_temperatures_suit_heads_of_any_scale(spec, random):
    """Where nothing can be known, the answers come near the shares of the classes, whichever head won."""
    labels = random.permutation(np.arange(160) % 4)
    dataset = dataset_of([f"class {label}" for label in labels])
    for scale in (0.01, 1.0, 100.0):
        table = table_of(spec, dataset, scale * np.abs(random.normal(size=(160, spec.width))))
        splits = Splits(train=table.ids[:120], test=table.ids[120:])
        floor = find_floor(table, dataset, splits, dataset.labels, FloorPlan(balance="none", seed=0))
        answers = floor.answers_to(table, splits.test, "single")
        assert -np.log(answers[np.arange(40), labels[120:]]).mean() == pytest.approx(np.log(4), abs=0.15)


def test_groups_are_left_out_together(spec, random):
    """Copies of an item in other folds would make memorising look like knowing."""
    labels = random.permutation(np.arange(30) % 2)
    vectors = random.normal(size=(30, spec.width)).repeat(4, axis=0)
    dataset = dataset_of([f"class {label}" for label in labels.repeat(4)])
    table = table_of(spec, dataset, vectors + 0.01 * random.normal(size=vectors.shape))
    groups = {id_: f"group {number // 4}" for number, id_ in enumerate(table.ids)}
    scores = {}
    for name, given in (("apart", {}), ("together", groups)):
        splits = Splits(train=table.ids, groups=given)
        scores[name] = find_floor(table, dataset, splits, dataset.labels, FloorPlan(balance="none", seed=0)).choice
    assert scores["apart"].chosen.cv_accuracy > 0.95
    assert scores["together"].chosen.cv_accuracy < 0.75


def test_a_question_as_the_report_shows_it():
    told = question("what?", "this", "so", [trial_of([1.0], "this")])
    assert told == {
        "question": "what?", "kept": "this", "reason": "so",
        "candidates": [{"name": "this", "score": 0.5, "note": "loss 1.0000"}],
    }  # fmt: skip


# Geometry


def wide_picture(random, label):
    """What tells the classes stands at the ends of a wide picture, where a crop to the middle does not look."""
    pixels = random.integers(90, 166, (48, 144, 3)).astype(np.uint8)
    lines = np.arange(32) // 4 % 2 == 0
    for start in (0, 112):
        part = pixels[8:40, start : start + 32]
        part[lines if label == "across" else slice(None), :] = 255 if label == "across" else part
        if label == "down":
            part[:, lines] = 255
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def wide():
    random = np.random.default_rng(5)
    labels = ["across", "down"] * 210
    return dataset_of(labels, items=[wide_picture(random, label) for label in labels])


@pytest.fixture(scope="module")
def fitted_wide(wide, prefix, tmp_path_factory):
    """A fit of all of them, and how many items were computed for it."""

    def stored():
        return sum(entry.items for entry in info(cache_root()))

    before = stored()
    model = solve(wide, out=tmp_path_factory.mktemp("wide") / "wide.hs")
    return model, stored() - before


def test_a_crop_that_loses_what_tells_is_not_kept(wide, prefix, fitted_wide):
    choice = choose_geometry(prefix, wide, geometry="auto", seed=0)
    scores = {trial.name: trial.score for trial in choice.trials}
    assert set(scores) == {"pad", "squash", "crop"}
    assert choice.preprocess.geometry != "crop"
    assert scores["crop"] < 0.7 < 0.9 < scores[choice.preprocess.geometry]
    assert choice.reason.startswith("by cross-validation on 56 items; ")


def test_the_geometry_is_asked_of_items_that_train(wide, prefix, fitted_wide):
    model, _ = fitted_wide
    asked = choose_geometry(prefix, wide, geometry="auto", seed=0).asked
    assert len(asked) == 56
    with (model.folder / "splits.csv").open(newline="") as file:
        sides = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert {sides[id_] for id_ in asked} == {"train"}
    assert list(sides.values()).count("test") == 84
    told = model.report.content["choices"][0]
    assert (told["question"], told["kept"]) == ("image geometry", model.preprocess.geometry)
    assert len(told["candidates"]) == 3


def test_choosing_costs_three_tenths_of_a_forward_pass(fitted_wide):
    _, computed = fitted_wide
    assert computed == 420 + 2 * 56
    assert computed <= 1.31 * 420


def test_the_data_s_own_test_split_is_not_asked(wide, prefix, fitted_wide):
    sides = ["test" if number < 15 else "train" for number in range(420)]
    held = replace(wide, samples=tuple(replace(sample, split=side) for sample, side in zip(wide.samples, sides, strict=True)))
    asked = choose_geometry(prefix, held, geometry="auto", seed=0).asked
    assert asked
    assert not asked & {sample.id for sample in held.samples[:15]}


@pytest.mark.parametrize("geometry", ["crop", "pad", "squash"])
def test_a_geometry_that_is_asked_for_is_not_tried(wide, prefix, geometry):
    choice = choose_geometry(prefix, wide, geometry=geometry, seed=0)
    assert (choice.preprocess.geometry, choice.trials, choice.reason, choice.asked) == (geometry, (), "as asked", frozenset())


def test_of_few_items_all_are_looked_at_before_it_is_said_that_it_does_not_matter(monkeypatch, prefix, draw):
    """A part of few items could tell nothing of one in twenty."""
    few, seen = dataset_of(["rings", "blobs"] * 20, items=[draw("rings", 0)] * 40), []
    kind = type(prefix.spec.preprocess)
    monkeypatch.setattr(kind, "indifferent", lambda self, items: seen.append(len(items)) or "")
    choose_geometry(prefix, few, geometry="auto", seed=0)
    assert seen == [40]
    # Two items of each class are asked of none of them; that costs no more where there are many classes.
    many = dataset_of([f"class {number // 2}" for number in range(2000)], items=[draw("rings", 0)] * 2000)
    choose_geometry(prefix, many, geometry="auto", seed=0)
    assert 128 < seen[1] <= 256


def test_few_items_are_padded_and_told_why(prefix, draw):
    few = dataset_of(["rings", "blobs"] * 20, items=[draw("rings", 0)] * 40)
    choice = choose_geometry(prefix, few, geometry="auto", seed=0)
    assert choice.preprocess.geometry == choice.preprocess.fittings[0] == "pad"
    assert choice.reason.startswith("too few items to ask the data: 6 of 40 would be asked, and 50 is the least")
    assert choice.trials == () and choice.asked == frozenset()


def test_features_do_not_depend_on_the_order_of_the_items(prefix, wide):
    """Batches are cut elsewhere then; what an item gets is its own."""
    preprocess = prefix.spec.preprocess.with_geometry("pad")
    few = wide.samples[:12]
    forth, back = extract(prefix, preprocess, few), extract(prefix, preprocess, few[::-1])
    np.testing.assert_array_equal(forth.features("multi"), back.features("multi", forth.ids))
