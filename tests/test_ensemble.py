"""Heads that answer in shares: how many each gets, and that their sum is one linear head."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fused_tables import fused, two_tables
from headstart.heads.judge import Judge
from headstart.records import Splits
from headstart.select import ensemble
from headstart.select.ensemble import TOGETHER, mix_heads
from headstart.select.floor import FloorPlan, find_floor
from headstart.select.mixture import knowledge, likely_shares, mix, unit_of

PLAN = FloorPlan(balance="none", seed=0)


def judge_of(targets, task="single"):
    targets = np.asarray(targets)
    weights = np.ones(int(targets.max()) + 1) if task == "single" else None
    return Judge.of(task, targets, np.arange(len(targets)) % 5, None, class_weights=weights)


def scores_that_tell(targets, strength, seed):
    random = np.random.default_rng(seed)
    return strength * np.eye(2)[targets] + random.standard_normal((len(targets), 2))


@given(st.integers(2, 4), st.integers(0, 2**32 - 1), st.integers(6, 40))
def test_shares_are_of_one_whole(num_sides, seed, count):
    targets = np.arange(count) % 2
    shares = likely_shares(judge_of(targets), [scores_that_tell(targets, 1.0, seed + side) for side in range(num_sides)])
    assert shares.shape == (num_sides,)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(), 1.0)


def test_little_evidence_leaves_shares_near_equal_and_much_gives_all_to_one():
    few, many = np.arange(8) % 2, np.arange(2000) % 2
    for targets, least, most in ((few, 0.1, 0.75), (many, 0.0, 1.0)):
        good, noise = scores_that_tell(targets, 1.0, 1), scores_that_tell(targets, 0.0, 2)
        shares = likely_shares(judge_of(targets), [good, noise, noise])
        assert least <= shares[1] <= shares[0] <= most
    assert shares[0] > ensemble.ALONE


def test_shares_of_values_find_the_mean_of_two_halves():
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 500, 1))
    targets = (first + second) / 2 + 0.01 * random.standard_normal((500, 1))
    np.testing.assert_allclose(likely_shares(judge_of(targets, "value"), [first, second]), [0.5, 0.5], atol=1e-6)


@pytest.mark.parametrize("task", ["single", "multi", "value"])
def test_what_tells_nothing_is_known_for_it(task):
    truth = np.arange(200) % 2
    targets = truth if task == "single" else truth[:, None].astype(float)
    columns = slice(None) if task == "single" else slice(1, 2)
    gain, error = knowledge(judge_of(targets, task), scores_that_tell(truth, 3.0, 0)[:, columns])
    assert (gain > error) == (task != "value"), "scores are no values: their unit is wrong"
    gain, error = knowledge(judge_of(targets, task), scores_that_tell(truth, 0.0, 0)[:, columns])
    assert gain <= 2 * error


def few_of(table, dataset, count):
    return Splits(train=table.ids[:count], groups={}, origin="")


def test_a_mixture_is_the_sum_of_its_heads(monkeypatch):
    monkeypatch.setattr(ensemble, "ALONE", 0.95)
    tables, dataset = two_tables(True)
    table = fused(tables, dataset.samples)
    splits = few_of(table, dataset, 50)
    found = mix_heads(table, dataset, splits, ("a", "b"), PLAN, 0)
    assert found.mixed
    assert found.part is None
    assert found.floor.head.kind == "mixture"
    assert found.told.startswith("shares by likelihood: x ")
    heads = [find_floor(each, dataset, splits, ("a", "b"), PLAN) for each in (table.of_part(0), table.of_part(1), table)]
    units = [unit_of("single", head.choice.scores) for head in heads]
    judge = judge_of([("a", "b").index(dataset.by_id[id_].labels[0]) for id_ in splits.train])
    out_of_fold = [head.choice.scores / unit for head, unit in zip(heads, units, strict=True)]
    shares = likely_shares(judge, out_of_fold)
    rest = table.ids[50:]
    answers = [
        head.scores(each, rest) / unit
        for head, each, unit in zip(heads, (table.of_part(0), table.of_part(1), table), units, strict=True)
    ]
    np.testing.assert_allclose(found.floor.scores(table, rest), mix(answers, shares), atol=1e-5)
    np.testing.assert_allclose(found.floor.choice.scores, mix(out_of_fold, shares), atol=1e-5)
    asked = {each["question"] for each in found.floor.choices}
    assert {f"head, {name}" for name in ("x", "y", TOGETHER)} <= asked


def test_one_that_knows_nothing_has_no_part():
    tables, dataset = two_tables(False)
    table = fused(tables, dataset.samples)
    found = mix_heads(table, dataset, few_of(table, dataset, 200), ("a", "b"), PLAN, 1)
    assert (found.part, found.mixed) == (0, False)
    assert found.floor.head.weight.shape[1] == tables[0].features(found.floor.block).shape[1]


def test_where_none_knows_anything_the_best_alone_answers():
    tables, dataset = two_tables(True)
    for table in tables:
        table.vectors[:] = np.random.default_rng(0).standard_normal(table.vectors.shape)
    table = fused(tables, dataset.samples)
    assert mix_heads(table, dataset, few_of(table, dataset, 200), ("a", "b"), PLAN, 1).part == 1
