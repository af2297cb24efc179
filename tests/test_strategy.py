"""Strategies: which are worth trying on which data, within what time, and what a backbone has blocks for."""

import pytest

from headstart.backbones.info import BackboneInfo, BlockInfo
from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.heads.choose import Candidate
from headstart.records import Dataset, Sample, Splits
from headstart.select.gate import Verdict
from headstart.select.rules import Circumstances
from headstart.select.strategy import Attempt, budget_seconds, check_strategy, propose, why_good_enough


def info_of(*num_parameters):
    blocks = tuple(BlockInfo(name=f"block{n}", width=8, num_parameters=count) for n, count in enumerate(num_parameters))
    total = sum(num_parameters)
    kind = {"name": "net", "architecture": "net", "modality": "image", "licence": "", "source": "", "sha256": ""}
    return BackboneInfo(**kind, width=8, num_parameters=total, blocks=blocks)


def data_of(counts, *, task="single", test=10):
    """A dataset with so many train samples of each class, and some for the test."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    samples = [
        Sample(
            id=f"{number}",
            item=None,
            labels=() if task == "value" else (label,),
            value=float(number) if task == "value" else None,
        )
        for number, label in enumerate([*labels, *list(counts)[:1] * test])
    ]
    names = () if task == "value" else tuple(counts)
    dataset = Dataset(samples=tuple(samples), labels=names, task=task, modality="image", source="made up")
    ids = tuple(sample.id for sample in samples)
    origin = "random 80/20" if test else "cross-validation: only 40 samples"
    return dataset, Splits(train=ids[: len(labels)], test=ids[len(labels) :], origin=origin)


def proposed(counts, *, device="cpu", pretrained=True, num_items=None, **how):
    dataset, splits = data_of(counts, **how)
    return propose(
        dataset,
        splits,
        Circumstances(
            num_items=num_items or len(splits.train),
            num_classes=len(counts),
            device=device,
            pretrained=pretrained,
            transformer=False,
        ),
    )


# What is tried


@pytest.mark.parametrize(
    ("counts", "device", "strategies"),
    [
        ({"a": 30, "b": 30}, "cpu", ("full", "last:2")),
        ({"a": 30, "b": 30}, "cuda", ("full", "last:2")),
        ({"a": 999, "b": 1_000}, "cpu", ("full", "last:2")),
        ({"a": 1_000, "b": 1_000}, "cpu", ("last:2",)),  # the whole network would take hours there
        ({"a": 1_000, "b": 1_000}, "cuda", ("full", "last:2")),
        ({"a": 1_000, "b": 1_000}, "mps", ("full", "last:2")),
    ],
)
def test_cheapest_first_and_the_whole_network_where_it_can_be_done(counts, device, strategies):
    assert proposed(counts, device=device) == (strategies, "")


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ({"a": 24, "b": 25}, "too few items to tune: 49 train, fewer than 50"),
        ({"a": 19, "b": 19, "c": 19}, "too few labels to tune: 19 a class, fewer than 20"),
        ({"a": 100, "b": 18, "c": 3}, "too few labels to tune: 18 a class, fewer than 20"),
        ({"a": 100, "b": 100, "c": 3}, ""),  # the typical class counts, not the rarest
        ({"a": 25, "b": 25}, ""),
        ({"a": 20, "b": 20, "c": 20}, ""),
    ],
)
def test_few_labels_are_left_to_the_exact_head(counts, why):
    strategies, told = proposed(counts)
    assert told == why
    assert bool(strategies) == (not why)


@pytest.mark.parametrize(
    ("accuracy", "loss", "enough"), [(1.0, 0.003, True), (1.0, 0.3, False), (0.99, 0.003, False), (None, None, False)]
)
def test_where_nothing_is_left_to_gain_nothing_is_tried(accuracy, loss, enough):
    seen = {
        "cv_accuracy": accuracy,
        "cv_log_loss": loss,
        "cv_rmse": 0.001,
        "temperature": 1.0,
        "gap": 0.0,
        "standard_error": 0.0,
    }
    why = why_good_enough(Candidate(kind="ridge", penalty=1.0, **seen))
    assert bool(why) == enough
    assert not enough or "every item right, with a log-loss of 0.0030" in why


def test_without_a_test_split_nothing_is_tuned():
    strategies, why = proposed({"a": 100, "b": 100}, test=0)
    assert strategies == ()
    assert why == "too few items to tune: cross-validation: only 40 samples"


def test_an_untrained_network_trains_as_a_whole():
    assert proposed({"a": 60, "b": 60}, pretrained=False) == (("full",), "")
    assert proposed({"a": 1_500, "b": 1_500}, pretrained=False) == (("full",), "")
    assert proposed({"a": 10, "b": 10}, pretrained=False)[0] == ()


def test_labels_of_other_tasks_are_counted_too():
    assert proposed({"a": 60, "b": 60}, task="value") == (("full", "last:2"), "")
    assert proposed({"a": 20, "b": 20}, task="value")[1] == "too few items to tune: 40 train, fewer than 50"
    samples = tuple(Sample(id=f"{n}", item=None, labels=("a",) if n % 4 else ("a", "b", "c")) for n in range(70))
    dataset = Dataset(samples=samples, labels=("a", "b", "c"), task="multi", modality="image", source="made up")
    ids = tuple(sample.id for sample in samples)
    facts = Circumstances(num_items=60, num_classes=3, device="cpu", pretrained=True, transformer=False)
    _, why = propose(dataset, Splits(train=ids[:60], test=ids[60:]), facts)
    assert why == "too few labels to tune: 15 a class, fewer than 20"


# What a backbone has blocks for


def test_only_blocks_with_weights_count():
    info = info_of(10, 0, 20, 0, 30, 0)
    assert [check_strategy(f"last:{count}", info) for count in (1, 2)] == ["last:1", "last:2"]
    assert check_strategy("last:3", info) == "full"  # all there are


@pytest.mark.parametrize("strategy", ["last:4", "last:99"])
def test_more_blocks_than_there_are_lists_them(strategy):
    with pytest.raises(SettingError) as told:
        check_strategy(strategy, info_of(10, 0, 20, 0, 30))
    assert told.value.what == f"strategy is '{strategy}', and net has 3 blocks with weights."
    assert "last:1 to last:2" in told.value.expected
    assert "block0, block2, block4" in told.value.expected
    assert "block1" not in told.value.expected


def test_a_network_that_is_one_block_can_only_be_tuned_whole():
    assert check_strategy("last:1", info_of(10)) == "full"
    with pytest.raises(SettingError) as told:
        check_strategy("last:2", info_of(10))
    assert told.value.what == "strategy is 'last:2', and net has 1 block with weights."
    assert told.value.expected == "extract or full: this network cannot be cut."
    assert told.value.mend == "--strategy full"


def test_the_way_out_that_is_named_works():
    for weights in ([10], [10, 20], [10, 20, 30]):
        with pytest.raises(SettingError) as told:
            check_strategy("last:9", info_of(*weights))
        way_out = told.value.mend.removeprefix("--strategy ")
        assert check_strategy(way_out, info_of(*weights)) == way_out


@pytest.mark.parametrize("strategy", ["auto", "extract", "full", "lora"])
def test_other_strategies_need_no_blocks(strategy):
    assert check_strategy(strategy, info_of(10)) == strategy


# Time


@pytest.mark.parametrize(
    ("budget", "floor_seconds", "device", "seconds"),
    [
        (None, 2.0, "cpu", 60.0),  # a minute in any case
        (None, 15.0, "cpu", 60.0),
        (None, 30.0, "cpu", 120.0),
        (None, 30.0, "cuda", 600.0),
        (None, 300.0, "mps", 600.0),
        ("90s", 30.0, "cpu", 90.0),
        ("2h", 1.0, "cuda", 7_200.0),
        (5, 100.0, "cpu", 5.0),
    ],
)
def test_budget(budget, floor_seconds, device, seconds):
    assert budget_seconds(FitSettings(budget=budget), floor_seconds=floor_seconds, device=device) == seconds


# What is told of a trial


def test_an_attempt_as_the_report_has_it():
    verdict = Verdict(
        passed=False,
        floor_score=0.8,
        tuned_score=0.81,
        gain=0.01,
        low=-0.02,
        high=0.04,
        loss="log-loss",
        floor_loss=0.5,
        tuned_loss=0.4,
        loss_gain=0.1,
        loss_low=-0.02,
        loss_high=0.3,
        num_items=99,
        basis="99 items of 5 folds",
    )
    told = Attempt(
        strategy="last:2", kept=False, reason=verdict.told, seconds=1.23456, plan={"epochs": 3}, verdict=verdict
    ).as_json()
    measured = "gain +0.010 [-0.020, +0.040] on 99 items of 5 folds; log-loss lower by 0.100 [-0.020, +0.300]"
    assert told["reason"] == f"{measured}: not better beyond doubt"
    assert (told["seconds"], told["plan"], told["history"]) == (1.235, {"epochs": 3}, [])
    assert told["gate"]["low"] == -0.02 and told["gate"]["passed"] is False
    untried = Attempt(strategy="full", kept=False, reason="not tried: no time", seconds=0.0, plan={}).as_json()
    assert untried["gate"] is None


# Options that contradict each other


@pytest.mark.parametrize("option", [{"epochs": 3}, {"learning_rate": 0.1}, {"find_learning_rate": True}])
def test_numbers_of_a_training_are_refused_where_nothing_trains(option):
    with pytest.raises(SettingError, match="trains nothing") as caught:
        FitSettings.from_options({"strategy": "extract"} | option)
    assert f"--{next(iter(option)).replace('_', '-')}" in caught.value.mend
    FitSettings.from_options({"strategy": "extract", "head": "mlp"} | option)
    FitSettings.from_options({"strategy": "auto"} | option)


def test_a_rate_and_a_test_that_finds_another_are_refused():
    with pytest.raises(SettingError, match="one of the two"):
        FitSettings.from_options({"learning_rate": 0.1, "find_learning_rate": True})
