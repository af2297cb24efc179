"""The gate: a tuned network must be better beyond doubt, on items that neither it nor the floor has seen in any way."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
import torch

from headstart.backbones import locate, open_backbone
from headstart.backbones.pooling import PooledBlocks, PooledTail
from headstart.config import FitSettings
from headstart.data.folds import VALID_FOLDS
from headstart.data.targets import encode_targets
from headstart.features import FeatureTable
from headstart.features.prefix import BlockSlice, PrefixSpec
from headstart.records import Dataset, Sample, Splits
from headstart.select import trials, tuned
from headstart.select.calibration import calibrate
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.futility import StopIfWorse, chance_to_pass
from headstart.select.gate import hold_gate, mark_items
from headstart.select.rules import Circumstances, make_plan
from headstart.select.scoring import calibrated_loss, scores_of
from headstart.select.trials import fit_in_budget, seconds_an_item, try_strategy
from headstart.select.tuned import Ground, Prepared, build_network, training_set
from headstart.tuning.network import TrainedHead
from headstart.tuning.plan import TuningPlan

DRAWS = 4_000


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def one_hot(labels, num_classes):
    return np.eye(num_classes)[labels]


def right_with(chance, targets, random, num_classes=3):
    """Answers that are right in a share of the items, and wrong by one class in the others."""
    right = random.random(len(targets)) < chance
    return one_hot(np.where(right, targets, (targets + 1) % num_classes), num_classes)


def hold(tuned_answers, floor_answers, targets, task="single", *, groups=None, seed=0):
    return hold_gate(tuned_answers, floor_answers, targets, task, groups=groups, seed=seed, basis="made up items")


# What an answer is worth


def test_an_item_of_one_label_is_right_or_wrong_and_its_loss_that_of_calibrated_scores():
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 90)
    scores = 7 * one_hot(targets, 3) + 5 * random.normal(size=(90, 3))
    marks = mark_items(scores, targets, "single")
    assert marks.scores.tolist() == (scores.argmax(axis=1) == targets).tolist()

    def losses(temperature):
        return -scipy.special.log_softmax(scores / temperature, axis=1)[np.arange(90), targets]

    # Close to the best that any temperature reaches; the calibration is a little less sure on purpose.
    best = min(losses(temperature).mean() for temperature in np.geomspace(0.1, 100, 400))
    assert best <= marks.losses.mean() < 1.01 * best
    np.testing.assert_allclose(mark_items(100 * scores, targets, "single").losses, marks.losses, rtol=1e-6)


def test_a_sure_mistake_costs_much_but_not_all():
    targets = np.zeros(5_000, np.int64)
    targets[0] = 1
    marks = mark_items(one_hot(np.zeros(5_000, np.int64), 2) * 1e6, targets, "single")
    assert 5 < marks.losses[0] < 25 and np.isfinite(marks.losses).all()
    assert marks.scores.sum() == 4_999


def test_several_labels_are_given_from_the_thresholds_that_suit_them():
    random = np.random.default_rng(0)
    truth = random.random((400, 2)) < (0.5, 0.1)
    scores = np.where(truth, 1.0, -1.0) + random.normal(size=truth.shape) * 1.2 - (0.0, 2.5)
    marks = mark_items(scores, truth.astype(np.float32), "multi")
    # The second label's scores all lie low: cut at a probability of one half of its own, hardly one would be given.
    calibration = calibrate(scores, truth.astype(np.float32), task="multi", num_labels=2)
    given = calibration.answers(scores, "multi") >= calibration.thresholds
    np.testing.assert_array_equal(marks.scores, (given == truth).mean(axis=1))
    assert given[:, 1].any()
    chances = scipy.special.expit(scores / calibration.temperatures)
    expected = sklearn.metrics.log_loss(truth[:, 0], chances[:, 0]) + sklearn.metrics.log_loss(truth[:, 1], chances[:, 1])
    assert marks.losses.mean() == pytest.approx(expected / 2)


def test_values_are_told_by_their_squared_error():
    values = np.array([1.0, 3.0, 5.0])
    marks = mark_items(np.array([[1.0], [2.0], [7.0]]), values, "value")
    np.testing.assert_allclose(marks.scores, [0.0, -1 / values.var(), -4 / values.var()])
    np.testing.assert_array_equal(marks.losses, -marks.scores)
    # The mean over all items is R² less 1.
    explained = sklearn.metrics.r2_score(values, [1.0, 2.0, 7.0])
    assert marks.scores.mean() == pytest.approx(explained - 1)


# Against a bootstrap by brute force


def brute_force(gains, clusters, random):
    """Draw clusters again with replacement, item by item; the mean counts as many items as there are."""
    names = np.unique(clusters)
    members = [np.flatnonzero(clusters == name) for name in names]
    means = []
    for _ in range(DRAWS):
        drawn = random.integers(0, len(names), len(names))
        means.append(np.concatenate([gains[members[name]] for name in drawn]).mean())
    return np.percentile(means, [2.5, 97.5])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_interval_is_that_of_a_bootstrap_by_brute_force(task, grouped):
    random = np.random.default_rng(len(task) + grouped)
    count = 150
    match task:
        case "single":
            targets = random.integers(0, 3, count)
            pair = right_with(0.85, targets, random), right_with(0.7, targets, random)
        case "multi":
            targets = (random.random((count, 4)) < 0.5).astype(np.float32)
            pair = tuple(np.abs(targets - (random.random(targets.shape) < wrong)) for wrong in (0.2, 0.3))
        case "value":
            targets = random.normal(10, 3, count)
            pair = tuple((targets + random.normal(0, noise, count))[:, None] for noise in (1.0, 1.5))
    # Pairs of near copies, whose members fare alike, and groups of other sizes.
    groups = np.array([f"group {number // 5 if number % 2 else number // 15}" for number in range(count)])
    verdict = hold(*pair, targets, task, groups=groups if grouped else None)
    ours, theirs = (mark_items(scores, targets, task) for scores in pair)
    told = {
        "score": (ours.scores - theirs.scores, verdict.gain, verdict.low, verdict.high),
        "loss": (theirs.losses - ours.losses, verdict.loss_gain, verdict.loss_low, verdict.loss_high),
    }
    for name, (gains, gain, found_low, found_high) in told.items():
        low, high = brute_force(gains, groups if grouped else np.arange(count), random)
        assert gain == pytest.approx(gains.mean()), name
        assert high > low, name
        # The noise of a percentile of some thousand draws is a few per cent of the width.
        np.testing.assert_allclose([found_low, found_high], [low, high], rtol=0, atol=0.12 * (high - low), err_msg=name)
    assert verdict.tuned_score - verdict.floor_score == pytest.approx(verdict.gain)
    assert verdict.floor_loss - verdict.tuned_loss == pytest.approx(verdict.loss_gain)
    assert verdict.passed == (verdict.loss_low > 0 and verdict.gain >= 0)
    assert verdict.num_items == count


def test_a_large_group_cannot_gain_more_than_all():
    """Ten of twenty items are one group that only one side gets right: drawn twice, it is more of the items, too."""
    targets = np.arange(20) % 2
    right = np.eye(2)[targets] * 5.0
    wrong = np.where(np.arange(20)[:, None] < 10, np.eye(2)[1 - targets], np.eye(2)[targets]) * 5.0
    verdict = hold(right, wrong, targets, groups=np.array(["large"] * 10 + [f"own {number}" for number in range(10)]))
    assert verdict.gain == 0.5
    assert 0.0 <= verdict.low < verdict.high <= 1.0


def test_items_of_a_group_are_one_witness_not_many():
    """Forty times the same picture is no more evidence than once."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 12)
    better, worse = right_with(0.9, targets, random), right_with(0.5, targets, random)
    many = [np.repeat(part, 40, axis=0) for part in (better, worse)]
    alone = hold(better, worse, targets)
    copied = hold(*many, np.repeat(targets, 40))
    grouped = hold(*many, np.repeat(targets, 40), groups=np.repeat(np.arange(12).astype(str), 40))
    assert copied.gain == grouped.gain == alone.gain
    assert copied.passed
    assert grouped.high - grouped.low > 4 * (copied.high - copied.low)
    np.testing.assert_allclose([grouped.low, grouped.high], [alone.low, alone.high], atol=0.09)  # one of the twelve


# What passes


def pass_rate(task, draw, *, count=200, repeats=400):
    passed = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, len(task)])
        targets, pair = draw(random, count)
        passed += hold(*pair, targets, task, seed=seed).passed
    return passed / repeats


def equal_single(random, count):
    targets = random.integers(0, 3, count)
    return targets, (right_with(0.8, targets, random), right_with(0.8, targets, random))


def equal_multi(random, count):
    targets = (random.random((count, 4)) < 0.5).astype(np.float32)
    return targets, tuple(np.abs(targets - (random.random(targets.shape) < 0.2)) for _ in range(2))


def equal_value(random, count):
    targets = random.normal(0, 3, count)
    return targets, tuple((targets + random.normal(0, 1, count))[:, None] for _ in range(2))


@pytest.mark.parametrize(("task", "draw"), [("single", equal_single), ("multi", equal_multi), ("value", equal_value)])
def test_of_two_equal_models_one_passes_rarely(task, draw):
    """The lower end of a 95 % interval lies above 0 in one of forty cases."""
    rate = pass_rate(task, draw, repeats=400 if task != "value" else 150)
    assert 0 < rate < 0.06


def test_a_better_model_passes_nearly_always_where_items_are_enough():
    def draw(random, count):
        targets = random.integers(0, 3, count)
        return targets, (right_with(0.9, targets, random), right_with(0.75, targets, random))

    assert pass_rate("single", draw, count=400, repeats=100) > 0.97
    assert pass_rate("single", draw, count=15, repeats=100) < 0.6


def test_the_same_answers_never_pass():
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 50)
    answers = right_with(0.8, targets, random)
    verdict = hold(answers, answers, targets)
    # Of 50 items none differs: at the edge of chance one in seventeen would.
    edge = pytest.approx(1 - 0.05 ** (1 / 50))
    assert (verdict.passed, verdict.gain, -verdict.low, verdict.high) == (False, 0.0, edge, edge)


def with_margins(margins, targets):
    """Scores that stand for the truth by a margin, or against it where that is below 0."""
    return np.where(margins > 0, margins, 0)[:, None] * one_hot(targets, 3) + (
        np.where(margins < 0, -margins, 0)[:, None] * one_hot((targets + 1) % 3, 3)
    )


def test_a_gain_too_small_for_right_and_wrong_to_tell_passes_by_the_log_loss():
    random = np.random.default_rng(1)
    targets = random.integers(0, 3, 200)
    unsure = random.uniform(-0.3, 1.5, 200)
    surer = np.where(unsure > 0, 3.0, unsure)
    surer[np.flatnonzero(unsure < 0)[:2]] = 0.1
    verdict = hold(with_margins(surer, targets), with_margins(unsure, targets), targets)
    assert (verdict.gain, verdict.low) == (0.01, 0.0) and verdict.loss_low > 0.05
    assert verdict.passed


def test_a_model_that_is_surer_and_less_often_right_does_not_pass():
    random = np.random.default_rng(1)
    targets = random.integers(0, 3, 500)
    unsure = random.choice([1.0, 0.05, -1.0], 500, p=[0.60, 0.38, 0.02])
    sure = random.choice([1.0, -0.05], 500, p=[0.95, 0.05])
    verdict = hold(with_margins(sure, targets), with_margins(unsure, targets), targets)
    assert verdict.loss_low > 0 > verdict.gain
    assert not verdict.passed


def test_a_worse_model_does_not_pass_and_is_told_so():
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 200)
    verdict = hold(right_with(0.6, targets, random), right_with(0.9, targets, random), targets)
    assert not verdict.passed and verdict.high < 0 and verdict.loss_high < 0
    assert " on made up items; log-loss lower by -" in verdict.told and verdict.told.endswith(": not better beyond doubt")
    assert verdict.told.startswith(f"gain {verdict.gain:+.3f} [{verdict.low:+.3f}, {verdict.high:+.3f}]")
    assert json.loads(json.dumps(verdict.as_json()))["gain"] == verdict.gain


def test_the_same_seed_gives_the_same_verdict():
    random = np.random.default_rng(0)
    targets = random.normal(size=300)
    pair = [targets[:, None] + random.normal(size=(300, 1)) for _ in range(2)]
    assert hold(*pair, targets, "value", seed=3) == hold(*pair, targets, "value", seed=3)
    assert hold(*pair, targets, "value", seed=3).low != hold(*pair, targets, "value", seed=4).low


# A trial on a small network

NAME, SIDE, NUM_ITEMS = "random:test_resnet", 32, 66


class Pictures:
    """Pixels in memory, by id, with a record of what was asked for."""

    def __init__(self, pixels):
        self.pixels, self.asked = pixels, []

    def load(self, ids, view):
        self.asked += ids
        return np.stack([self.pixels[id_] for id_ in ids]), np.empty((len(ids), 0), np.float32)


@pytest.fixture(scope="module")
def backbone():
    return open_backbone(NAME, image_size=SIDE)


@pytest.fixture(scope="module")
def plan():
    numbers = {"strategy": "full", "epochs": 2, "batch_size": 16, "head_rate": 1e-2, "backbone_rate": 1e-3}
    return TuningPlan(**numbers, averaging="ema")


def make_prepared(backbone, plan, *, changed=(), valid=0, groups=None):
    """Pictures of three classes, told by their brightness; those of some ids are others, and labelled otherwise."""
    random = np.random.default_rng(0)
    labels = np.arange(NUM_ITEMS) % 3
    pixels = random.normal(size=(NUM_ITEMS, 3, SIDE, SIDE)).astype(np.float32) * 0.5
    pixels += (labels[:, None, None, None] - 1) * 0.4
    ids = tuple(f"picture {number:02d}" for number in range(NUM_ITEMS))
    for row, id_ in enumerate(ids):
        if id_ in changed:
            labels[row], pixels[row] = (labels[row] + 1) % 3, 9 - pixels[row]
    network = PooledBlocks(backbone)
    with torch.no_grad():
        vectors = network(torch.from_numpy(pixels)).numpy()[:, None]
    places = zip(backbone.blocks, network.pooling.slices, strict=True)
    layout = tuple(BlockSlice(name=name, start=start, width=width) for name, (start, width) in places)
    spec = PrefixSpec(info=backbone.info, preprocess=backbone.preprocess, layout=layout, relative_error=0.0)
    table = FeatureTable(
        ids=ids, vectors=vectors, views=("",), spec=spec, preprocess=backbone.preprocess, hashes={}, failures={},
        hits=0, misses=NUM_ITEMS, seconds=1.0,
    )  # fmt: skip
    samples = tuple(Sample(id=id_, item=None, labels=("abc"[label],)) for id_, label in zip(ids, labels, strict=True))
    dataset = Dataset(samples=samples, labels=("a", "b", "c"), task="single", modality="image", source="made up")
    splits = Splits(train=ids[: 60 - valid], valid=ids[60 - valid : 60], test=ids[60:], groups=groups or {})
    ground = Ground(source=locate(NAME), backbone=backbone, table=table, dataset=dataset, splits=splits, image_size=SIDE)
    inputs = Pictures(dict(zip(ids, pixels, strict=True)))
    return Prepared(ground=ground, plan=plan, cut=None, inputs=inputs, tail=PooledTail(backbone, None), note="")


FLOOR = FloorPlan(balance="auto", seed=0)


class Spy:
    """What floors, heads and trainings were given in each fold, up to the moment the held-out items are asked."""

    def __init__(self, monkeypatch, prepared):
        self.folds, self.seen, self.prepared = [], set(), prepared
        table = prepared.ground.table
        row_of = {table.features("multi", [id_]).tobytes(): id_ for id_ in table.ids}

        def find(table, dataset, splits, labels, plan):
            self.seen |= set(splits.train)
            return find_floor(table, dataset, splits, labels, plan)

        def from_exact(features, head, temperatures):
            # Which items the head's mean and deviation are of: by their features, whichever block they are of.
            wanted = {rows.tobytes() for rows in features}
            blocks = ("last", "multi")
            found = {id_ for id_ in row_of.values() for b in blocks if table.features(b, [id_])[0].tobytes() in wanted}
            assert len(found) == len(features)
            self.seen |= found
            return whole(features, head, temperatures)

        whole, tune, scores_of = TrainedHead.from_exact, tuned.tune, trials.scores_of

        def watched_tune(network, train, valid, **how):
            self.seen |= {*train.ids, *valid.ids}
            return tune(network, train, valid, **how)

        def scored(network, inputs, ids):
            weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            self.folds.append(SimpleNamespace(seen=self.seen | set(inputs.asked), held=set(ids), weights=weights))
            answers = scores_of(network, inputs, ids)
            self.seen = set()
            inputs.asked.clear()
            return answers

        for module in (trials, tuned):
            monkeypatch.setattr(module, "find_floor", find)
        monkeypatch.setattr(TrainedHead, "from_exact", from_exact)
        monkeypatch.setattr(tuned, "tune", watched_tune)
        monkeypatch.setattr(trials, "scores_of", scored)


@pytest.mark.parametrize(("num_folds", "valid"), [(3, 0), (1, 0), (2, 12)])
def test_in_no_fold_was_a_held_out_item_seen_before_it_is_asked(monkeypatch, backbone, plan, num_folds, valid):
    prepared = make_prepared(backbone, plan, valid=valid)
    splits = prepared.ground.splits
    spy = Spy(monkeypatch, prepared)
    trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=num_folds, checkpoints=())
    assert len(spy.folds) == num_folds
    for fold in spy.folds:
        assert fold.held and not fold.seen & fold.held
        assert fold.seen == (set(splits.train) | set(splits.valid)) - fold.held
    held = [id_ for fold in spy.folds for id_ in fold.held]
    assert len(held) == len(set(held)) == len(trial.ids)
    assert set(trial.ids) == set(held) <= set(splits.train)
    assert (set(held) == set(splits.train)) == (num_folds > 1)
    assert trial.answers.shape == (len(held), 3)
    np.testing.assert_allclose(trial.answers.sum(axis=1), 1)
    assert trial.verdict.num_items == len(held)
    assert trial.verdict.basis == f"{len(held)} items of {f'{num_folds} folds' if num_folds > 1 else 'a fifth held out'}"
    assert len(trial.shares) == num_folds and set(trial.shares) <= set(plan.interpolations)


def test_other_held_out_items_leave_network_and_floor_as_they_are(monkeypatch, backbone, plan):
    """Not a bit of the tuned network changes when pictures and labels of the held-out part do."""
    found = []
    held = ()
    for changed in (False, True):
        with monkeypatch.context() as patch:
            prepared = make_prepared(backbone, plan, changed=held if changed else ())
            ids = prepared.ground.splits.train
            folds = np.array([[int(id_.split()[1]) // 12 for id_ in ids]])
            held = tuple(id_ for id_, fold in zip(ids, folds[0], strict=True) if fold == 0)
            patch.setattr(trials, "cross_validation_folds", lambda *_, folds=folds, **__: folds)
            spy = Spy(patch, prepared)
            trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=1, checkpoints=())
            found.append((spy.folds[0].weights, trial))
    (before, first), (after, second) = found
    assert first.ids == second.ids == held
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert not np.allclose(first.answers, second.answers)


def test_groups_are_held_out_together(monkeypatch, backbone, plan):
    groups = {f"picture {number:02d}": f"scene {number // 6}" for number in range(0, 60)}
    prepared = make_prepared(backbone, plan, groups=groups)
    spy = Spy(monkeypatch, prepared)
    trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=2, checkpoints=())
    for fold in spy.folds:
        assert not {groups[id_] for id_ in fold.held} & {groups[id_] for id_ in fold.seen}
    assert len(trial.ids) == 60


def test_a_trial_is_the_same_every_time_and_leaves_the_source_s_tail_alone(backbone, plan):
    prepared = make_prepared(backbone, plan)
    before = {name: tensor.clone() for name, tensor in prepared.tail.state_dict().items()}
    first, second = (try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=1, checkpoints=()) for _ in range(2))
    np.testing.assert_array_equal(first.answers, second.answers)
    assert first.verdict == second.verdict
    for name, tensor in prepared.tail.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_verdict_is_that_of_the_answers(backbone, plan):
    prepared = make_prepared(backbone, plan)
    trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=1, checkpoints=())
    targets = encode_targets(prepared.ground.dataset, trial.ids, ("a", "b", "c"))
    assert trial.verdict.tuned_score == pytest.approx((trial.answers.argmax(axis=1) == targets).mean())
    rest = tuple(id_ for id_ in prepared.ground.splits.train if id_ not in trial.ids)
    ground = prepared.ground
    floor = find_floor(ground.table, ground.dataset, replace(ground.splits, train=rest), ("a", "b", "c"), FLOOR)
    answers = floor.answers_to(ground.table, trial.ids, "single")
    assert trial.verdict.floor_score == pytest.approx((answers.argmax(axis=1) == targets).mean())


def losing(valid_loss, *, start=0.3, epochs=9, stopped_after=None):
    """What becomes of a training whose validation loss is this in every epoch."""
    rule = StopIfWorse(lambda: valid_loss, start, epochs)
    rule.model = SimpleNamespace(stop_training=False)
    for epoch in range(epochs):
        rule.on_epoch_end(epoch, {})
        assert rule.stopped == rule.model.stop_training
        if rule.stopped:
            return epoch + 1
    return None


def test_a_training_that_does_worse_than_its_start_ends_half_way():
    assert losing(0.4) == 4
    assert losing(0.4, epochs=2) == 2
    assert losing(0.33) is None
    assert losing(0.1) is None


@pytest.mark.parametrize("given_up", [False, True])
def test_a_strategy_whose_fold_was_given_up_does_not_pass(monkeypatch, backbone, plan, given_up):
    prepared = make_prepared(backbone, plan)
    hold, train = trials.hold_gate, trials.train_strategy
    better = {"loss_gain": 0.2, "loss_low": 0.1, "loss_high": 0.3, "gain": 0.2, "passed": True}
    monkeypatch.setattr(trials, "hold_gate", lambda *items, **how: replace(hold(*items, **how), **better))
    told = []

    def trained(*given, **how):
        told.append(replace(train(*given, **how), given_up=given_up and not told))
        return told[-1]

    monkeypatch.setattr(trials, "train_strategy", trained)
    trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=2, checkpoints=(), may_stop=True)
    assert len(told) == 2
    assert trial.verdict.passed == (not given_up)


@pytest.mark.parametrize(("share", "gain"), [(1 / 3, 0.0), (1 / 3, 0.08), (0.6, 0.03), (0.6, 0.06)])
def test_the_chance_to_pass_is_that_of_folds_to_come_like_those_done(share, gain):
    count, deviation = 300, 0.5
    done = round(share * count)
    error = deviation / np.sqrt(done)
    low, high = gain - 1.95996 * error, gain + 1.95996 * error
    verdict = replace(hold(*[np.eye(3)] * 2, np.arange(3)), loss_gain=gain, loss_low=low, loss_high=high)
    random = np.random.default_rng(0)
    coming = gain + random.normal(size=DRAWS * 5) * deviation / np.sqrt(count - done)
    whole = (gain * done + coming * (count - done)) / count
    expected = (whole > 1.95996 * deviation / np.sqrt(count)).mean()
    assert chance_to_pass(verdict, done / count) == pytest.approx(expected, abs=0.02)


def test_a_trial_ends_where_it_has_next_to_no_chance(monkeypatch, backbone, plan):
    prepared = make_prepared(backbone, plan)
    hold, kinds = trials.hold_gate, {"hopeless": (-0.1, -0.3, 0.1), "open": (0.1, -0.1, 0.3)}
    for kind, may_stop, num_asked in (("hopeless", True, 20), ("hopeless", False, 60), ("open", True, 60)):
        told = dict(zip(("loss_gain", "loss_low", "loss_high"), kinds[kind], strict=True))
        monkeypatch.setattr(trials, "hold_gate", lambda *items, told=told, **how: replace(hold(*items, **how), **told))
        trial = try_strategy(prepared, FLOOR, ("a", "b", "c"), num_folds=3, checkpoints=(), may_stop=may_stop)
        assert len(trial.ids) == num_asked
        assert ("the others left out" in trial.verdict.basis) == (num_asked < 60)


def test_a_network_that_is_too_sure_is_not_held_against_it(backbone, plan):
    """Weights are chosen by what they tell once calibrated: ten times the scores say the same."""
    prepared = make_prepared(backbone, plan)
    ids = prepared.ground.splits.train
    floor = find_floor(prepared.ground.table, prepared.ground.dataset, prepared.ground.splits, ("a", "b", "c"), FLOOR)
    network = build_network(prepared, floor, ids, ids)
    items = training_set(prepared, floor, ids)
    wrong = np.arange(len(ids)) % 4 == 0
    items = replace(items, targets=np.where(wrong, (items.targets + 1) % 3, items.targets))
    before = calibrated_loss(network, items, "single")
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(10)
    assert calibrated_loss(network, items, "single") == pytest.approx(before, rel=1e-3)
    scores, targets = torch.from_numpy(scores_of(network, prepared.inputs, ids)), torch.from_numpy(items.targets)
    assert float(torch.nn.functional.cross_entropy(scores, targets)) > before * 1.5


# Time


def budgeted(num_items, epochs, seconds, each, *, valid=0):
    ids = tuple(map(str, range(num_items)))
    ground = SimpleNamespace(splits=Splits(train=ids, valid=tuple(map(str, range(-valid, 0)))))
    plan = TuningPlan(strategy="last:2", epochs=epochs, batch_size=8, head_rate=1e-3, backbone_rate=1e-3)
    prepared = Prepared(ground=ground, plan=plan, cut=None, inputs=None, tail=None, note="")
    return fit_in_budget(prepared, seconds_an_item=each, seconds=seconds)


def cost(num_items, epochs, num_folds, each, *, valid=0):
    """Seconds of all trainings, counted item by item: in each fold, and in the end."""
    part = 1.0 if valid else 1 - 1 / VALID_FOLDS  # the rest chooses epochs
    in_folds = num_items * 0.8 if num_folds == 1 else num_folds * num_items * (num_folds - 1) / num_folds
    return (in_folds + num_items) * part * epochs * each


@pytest.mark.parametrize("valid", [0, 50])
@pytest.mark.parametrize("seconds", [1, 3, 5, 8, 10, 12, 17, 20, 31, 40, 63, 100, 150, 1000])
@pytest.mark.parametrize("epochs", [3, 5, 12, 30])
def test_folds_and_epochs_are_as_many_as_fit(seconds, epochs, valid):
    """Five folds where all epochs fit, else three where a quarter does, else a single part; never under five epochs."""
    num_items, each = 1_000, 0.0005
    found = budgeted(num_items, epochs, seconds, each, valid=valid)
    choices = {}
    for num_folds in (5, 3, 1):
        fitting = [n for n in range(1, epochs + 1) if cost(num_items, n, num_folds, each, valid=valid) <= seconds * (1 + 1e-9)]
        least = min(epochs, max(5, {5: epochs, 3: epochs // 4, 1: 0}[num_folds]))
        if fitting and fitting[-1] >= least:
            choices[num_folds] = fitting[-1]
    if not choices:
        assert found is None
        return
    prepared, num_folds = found
    assert num_folds == max(choices)
    # A budget that ends exactly with an epoch may be a rounding error short of it.
    assert prepared.plan.epochs in {choices[num_folds], choices[num_folds] - 1}
    assert cost(num_items, prepared.plan.epochs + 1, num_folds, each, valid=valid) > seconds * (1 - 1e-9) or (
        prepared.plan.epochs == epochs
    )
    assert ("epochs" in prepared.plan.reasons) == (prepared.plan.epochs < epochs)


def test_a_single_part_too_small_to_show_a_gain_is_not_asked():
    """Of 900 items a fifth is 180: where three folds do not fit, nothing is tried."""
    enough = cost(900, 5, 1, 0.001) + 1
    assert cost(900, 30 // 4, 3, 0.001) > enough
    assert budgeted(900, 30, enough, 0.001) is None
    assert budgeted(1_000, 30, enough * 10 / 9, 0.001)[1] == 1


def test_no_time_is_no_trial():
    assert budgeted(100, 30, 0.0, 0.001) is None
    assert budgeted(100, 30, -5.0, 0.001) is None


def test_the_time_an_item_takes_is_measured_on_a_few_and_changes_nothing(backbone, plan):
    prepared = make_prepared(backbone, plan)
    ground = prepared.ground
    floor = find_floor(ground.table, ground.dataset, ground.splits, ("a", "b", "c"), FLOOR)
    before = {name: tensor.clone() for name, tensor in prepared.tail.state_dict().items()}
    assert 0 < seconds_an_item(prepared, floor, expected=0.01) < 60
    assert set(prepared.inputs.asked) <= set(ground.splits.train[: 2 * plan.batch_size])
    for name, tensor in prepared.tail.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_rules_plan_goes_through_a_trial(backbone):
    """An untrained network with the plan that the rules make for it, statistics learned and all."""
    facts = Circumstances(num_items=60, num_classes=3, device="cpu", pretrained=False, transformer=False)
    plan = replace(make_plan("full", facts, FitSettings(epochs=2)), num_views=0)
    trial = try_strategy(make_prepared(backbone, plan), FLOOR, ("a", "b", "c"), num_folds=1, checkpoints=())
    assert trial.shares == (1.0,)
    assert np.isfinite(trial.answers).all()
