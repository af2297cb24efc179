"""The learning-rate range test, the numbers that a user may set one by one, and whether mirror images mean the same."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.select.rules import Circumstances, make_plan
from headstart.tuning.inputs import FeatureInputs
from headstart.tuning.network import TrainedHead, TunableNetwork
from headstart.tuning.plan import TuningPlan
from headstart.tuning.rate_range import HIGHEST, MARGIN, NUM_RUNS, RateRange, find_learning_rate
from headstart.tuning.training import TrainingSet
from small_training import LABELS, NUM_TRAIN, WIDTH, features_and_targets

PLAN = TuningPlan(strategy="head", epochs=3, batch_size=8, head_rate=0.05, backbone_rate=0.05)
FACTS = Circumstances(num_items=300, num_classes=4, device="cpu", pretrained=True, transformer=False)


def find(plan):
    features, targets = features_and_targets()
    inputs = FeatureInputs(features=features, rows={f"item-{row}": row for row in range(len(features))})
    sides = [range(NUM_TRAIN), range(NUM_TRAIN, len(features))]
    train, valid = (
        TrainingSet(inputs=inputs, ids=tuple(f"item-{r}" for r in side), targets=targets[list(side)]) for side in sides
    )

    def make_network():
        head = TrainedHead(features, nn.Sequential(nn.Linear(WIDTH, len(LABELS))))
        nn.init.zeros_(head.layers[0].weight)
        nn.init.zeros_(head.layers[0].bias)
        return TunableNetwork(None, head, columns=slice(0, WIDTH))

    return find_learning_rate(make_network, train, valid, task="single", plan=plan)


def test_the_range_test_gives_a_rate_a_run_and_tells_its_spread():
    found = find(PLAN)
    assert len(found.rates) == NUM_RUNS
    assert min(found.rates) <= found.rate <= max(found.rates)
    assert f"from {min(found.rates):.2g} to {max(found.rates):.2g}" in found.told
    # A linear head on standardised features comes apart somewhere between a rate that does nothing and the highest tried.
    assert PLAN.head_rate < found.rate * MARGIN <= PLAN.head_rate * HIGHEST


def test_the_range_test_says_the_same_for_the_same_seed_and_mostly_another_for_another():
    assert find(PLAN) == find(PLAN)
    assert find(PLAN).rates != find(replace(PLAN, seed=50)).rates


def test_a_rate_at_which_training_comes_apart_is_not_given():
    """Whatever rate the plan begins with, what is found is about the same, as it is a property of the data."""
    low, high = (find(replace(PLAN, head_rate=rate, backbone_rate=rate)).rate for rate in (0.05, 0.5))
    assert 1 / 8 < low / high < 8


def test_the_median_is_taken():
    assert RateRange(rates=(1.0, 30.0, 2.0)).rate == 2.0


def test_numbers_set_one_by_one_overrule_the_rules_and_say_so():
    plan = make_plan("last:2", FACTS, FitSettings(tuning=(("l2_sp", 0.01), ("averaging", "swa"), ("unfreeze_every", 2))))
    assert (plan.l2_sp, plan.averaging, plan.unfreeze_every) == (0.01, "swa", 2)
    assert plan.reasons["l2_sp"] == plan.reasons["averaging"] == "as asked"
    usual = make_plan("last:2", FACTS, FitSettings())
    assert (plan.epochs, plan.head_rate) == (usual.epochs, usual.head_rate)


@pytest.mark.parametrize(("name", "told"), [("l2sp", "'l2_sp'"), ("epochs", "options of fit"), ("strategy", "leave it out")])
def test_a_number_that_is_none_is_named(name, told):
    with pytest.raises(SettingError, match=f"no number called '{name}'") as error:
        make_plan("last:2", FACTS, FitSettings(tuning=((name, 1),)))
    assert told in error.value.mend and "label_smoothing" in error.value.expected


def test_a_number_out_of_its_range_is_refused():
    with pytest.raises(SettingError, match="label_smoothing is 1.5"):
        make_plan("full", FACTS, FitSettings(tuning=(("label_smoothing", 1.5),)))


def test_tuning_is_a_dict_from_python():
    assert FitSettings.from_options({"tuning": {"mixup": 0.2}}).tuning == (("mixup", 0.2),)
    with pytest.raises(SettingError, match="tuning is 3"):
        FitSettings.from_options({"tuning": 3})
    assert np.isclose(dict(FitSettings.from_options({"tuning": {"mixup": 0.2}}).tuning)["mixup"], 0.2)
