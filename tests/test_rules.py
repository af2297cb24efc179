"""Rules: every number of a training by the data's size, the device and the network, and what overrules them."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.select.rules import Circumstances, make_plan, with_epochs, with_rate

FACTS = Circumstances(num_items=500, num_classes=4, device="cpu", pretrained=True, transformer=False)
SETTINGS = FitSettings()


def plan_of(strategy="last:2", settings=SETTINGS, **facts):
    return make_plan(strategy, replace(FACTS, **facts), settings)


# By size


@pytest.mark.parametrize(
    ("num_items", "batch_size", "epochs"),
    [
        (50, 16, 100),  # 500 steps would be 160 epochs
        (200, 16, 40),
        (499, 16, 17),
        (500, 32, 32),  # larger batches from here on
        (1_000, 32, 16),
        (1_999, 32, 9),
        (2_000, 32, 24),  # 1,500 steps
        (4_999, 32, 10),
        (5_000, 64, 20),
        (19_999, 64, 5),
        (20_000, 64, 16),  # 5,000 steps
        (1_000_000, 64, 5),
    ],
)
def test_epochs_give_a_number_of_steps_that_follows_the_size(num_items, batch_size, epochs):
    plans = [plan_of(num_items=num_items, device=device) for device in ("cpu", "cuda", "mps")]
    assert {plan.epochs for plan in plans} == {epochs}
    assert {plan.batch_size for plan in plans} == {batch_size}
    assert f"for {num_items} samples" in plans[0].reasons["epochs"]


def test_an_untrained_network_gets_three_times_the_steps():
    assert plan_of(num_items=3_000, pretrained=False).epochs == math.ceil(4_500 * 32 / 3_000)
    assert plan_of(num_items=20_000, pretrained=False).epochs == math.ceil(15_000 * 64 / 20_000)
    assert plan_of(num_items=60, pretrained=False).epochs == 100  # and no more


@pytest.mark.parametrize(("num_items", "mixup"), [(19_999, 0.0), (20_000, 0.1), (300_000, 0.1)])
def test_samples_are_mixed_only_where_there_are_very_many(num_items, mixup):
    plan = plan_of(num_items=num_items)
    assert (plan.mixup, plan.cutmix) == (mixup, 0.0)


@pytest.mark.parametrize(("num_classes", "smoothing"), [(2, 0.0), (10, 0.0), (11, 0.1), (1_000, 0.1), (0, 0.0)])
def test_labels_are_smoothed_for_a_head_alone_where_classes_are_many(num_classes, smoothing):
    assert plan_of("head", num_classes=num_classes).label_smoothing == smoothing
    for strategy in ("last:2", "full", "lora"):
        assert plan_of(strategy, num_classes=num_classes).label_smoothing == (0.1 if num_classes else 0.0)


# By strategy, device and network


@pytest.mark.parametrize(
    ("strategy", "facts", "views"),
    [
        ("last:2", {}, 2),
        ("last:2", {"num_items": 2_000}, 2),  # each costs a pass of the frozen part over all items
        ("last:2", {"device": "cuda"}, 8),
        ("last:7", {"device": "mps", "num_items": 50_000}, 8),
        ("full", {}, 32),  # another in every epoch
        ("full", {"num_items": 4_000, "device": "cuda"}, 12),
        ("lora", {"num_items": 4_000}, 12),
        ("head", {"device": "cuda"}, 0),
    ],
)
def test_augmented_views(strategy, facts, views):
    plan = plan_of(strategy, **facts)
    assert plan.num_views == views
    assert ("num_views" in plan.reasons) == (views == 0)


@pytest.mark.parametrize(
    ("strategy", "facts", "head_rate", "backbone_rate", "block_decay", "weight_decay"),
    [
        ("last:2", {}, 1e-4, 1e-3, 1.0, 1e-2),
        ("full", {}, 1e-4, 1e-3, 1.0, 1e-2),
        ("full", {"transformer": True}, 1e-4, 5e-5, 0.75, 5e-2),
        ("lora", {"transformer": True}, 1e-3, 1e-3, 1.0, 0.0),
        ("full", {"pretrained": False}, 2e-3, 2e-3, 1.0, 5e-2),
        ("full", {"pretrained": False, "transformer": True}, 2e-3, 2e-3, 1.0, 5e-2),
        ("head", {}, 1e-3, 1e-3, 1.0, 1e-2),
        ("head", {"pretrained": False}, 1e-3, 1e-3, 1.0, 1e-2),
    ],
)
def test_rates_and_decays(strategy, facts, head_rate, backbone_rate, block_decay, weight_decay):
    plan = plan_of(strategy, **facts)
    assert (plan.head_rate, plan.backbone_rate) == (head_rate, backbone_rate)
    assert (plan.block_decay, plan.weight_decay) == (block_decay, weight_decay)


@pytest.mark.parametrize(
    ("strategy", "pretrained", "norms", "averaging", "shares"),
    [
        ("last:2", True, "kept", "ema", (0.25, 0.5, 0.75, 1.0)),
        ("full", True, "kept", "ema", (0.25, 0.5, 0.75, 1.0)),
        ("full", False, "updated", "none", (1.0,)),  # between noise and a network lies no network
        ("head", True, "kept", "ema", (1.0,)),
    ],
)
def test_what_follows_from_being_pretrained(strategy, pretrained, norms, averaging, shares):
    plan = plan_of(strategy, pretrained=pretrained)
    assert (plan.norm_statistics, plan.averaging, plan.interpolations) == (norms, averaging, shares)
    assert plan.strategy == strategy


# Overruled


def test_settings_overrule_and_the_reasons_say_so():
    plan = plan_of(settings=FitSettings(epochs=7, batch_size=8, learning_rate=0.02, seed=5))
    assert (plan.epochs, plan.batch_size, plan.seed) == (7, 8, 5)
    assert plan.head_rate == 0.02
    assert plan.backbone_rate == pytest.approx(0.2)  # in proportion
    assert plan.reasons["epochs"] == plan.reasons["head_rate"] == "as asked"
    assert plan_of(settings=FitSettings(epochs=1_000)).epochs == 1_000  # beyond what a rule would ever say
    assert plan_of("full", settings=FitSettings(epochs=7)).num_views == 7


def test_the_steps_stay_when_another_batch_size_is_asked_for():
    assert plan_of(settings=FitSettings(batch_size=8), num_items=300).epochs == math.ceil(500 * 8 / 300)
    assert plan_of(settings=FitSettings(batch_size=64), num_items=400).epochs == math.ceil(500 * 64 / 400)
    assert plan_of(settings=FitSettings(batch_size=256), num_items=10_000, device="cuda").epochs == 39


@pytest.mark.parametrize("strategy", ["last:2", "full", "lora", "head"])
@pytest.mark.parametrize("transformer", [True, False])
def test_another_rate_keeps_the_proportion(strategy, transformer):
    plan = plan_of(strategy, transformer=transformer)
    other = with_rate(plan, 0.5)
    assert other.head_rate == 0.5
    assert other.backbone_rate / other.head_rate == pytest.approx(plan.backbone_rate / plan.head_rate)
    assert replace(other, head_rate=plan.head_rate, backbone_rate=plan.backbone_rate) == plan


def test_other_epochs_keep_the_other_reasons():
    plan = plan_of(num_items=20_000)
    other = with_epochs(plan, 3, "what fits 60 s")
    assert (other.epochs, other.reasons["epochs"]) == (3, "what fits 60 s")
    assert other.reasons["mixup"] == plan.reasons["mixup"]
    assert plan.reasons["epochs"].startswith("5000 steps")  # not changed


@pytest.mark.parametrize("rate", [0.0, -1e-3, math.nan, math.inf])
def test_a_rate_that_cannot_work_is_refused(rate):
    with pytest.raises(SettingError, match="learning_rate is"):
        with_rate(plan_of(), rate)
    with pytest.raises(SettingError, match="learning_rate is") as told:
        FitSettings(learning_rate=rate)
    assert "--learning-rate" in told.value.mend


@given(
    strategy=st.sampled_from(["last:1", "last:5", "full", "lora", "head"]),
    num_items=st.integers(1, 10**7),
    num_classes=st.integers(0, 10**4),
    device=st.sampled_from(["cpu", "cuda", "mps"]),
    pretrained=st.booleans(),
    transformer=st.booleans(),
)
def test_any_circumstances_give_a_plan_that_can_be_saved(strategy, num_items, num_classes, device, pretrained, transformer):
    facts = Circumstances(
        num_items=num_items, num_classes=num_classes, device=device, pretrained=pretrained, transformer=transformer
    )
    plan = make_plan(strategy, facts, SETTINGS)
    assert 5 <= plan.epochs <= 100
    assert 0 < plan.backbone_rate < 0.01 and 0 < plan.head_rate < 0.01
    told = json.loads(json.dumps(plan.as_json()))
    assert told["epochs"] == plan.epochs and told["reasons"] == plan.reasons
    assert make_plan(strategy, facts, SETTINGS) == plan
