"""Advice from the curves of a training.

Every rule is a small function, and its thresholds are named here. A rule that is not sure says nothing. Losses are compared in
proportion to themselves, and by at least `LEAST_CHANGE`, so that a loss near 0 that doubles is no alarm; by `LEAST_SWING` where
they should be steady, because augmented views differ from epoch to epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headstart.report.words import is_number, number, percent

Kind = Literal[
    "at chance",
    "terms better",
    "learning rate too high",
    "over-fitting",
    "stopped too early",
    "nothing learned",
    "floor better",
    "gain unsure",
]

FEWEST_EPOCHS = 3
"""Fewer epochs than this show no tendency."""
LEAST_CHANGE = 0.01
"""Nats (or shares of the targets' variance): a smaller change of a loss is none."""
LEAST_SWING = 0.05
"""The same, for a loss that goes up and down."""
OVERFIT_RISE = 0.05
"""Share by which all of the last epochs lie above the lowest validation loss, where training longer made it worse."""
LAST_PART = 0.25
"""Share of the epochs that counts as the end of a training, at least `FEWEST_LAST` of them."""
FEWEST_LAST = 2
STILL_FALLING = 0.05
"""Share by which the validation loss fell over the end of the training, where it was not done yet."""
SPIKE = 0.10
"""Share by which an epoch's loss stands above both its neighbours, where it swings."""
FEWEST_SPIKES = 2
JUMP = 0.5
"""Share by which the training loss rose from one epoch to the next, where a single time is enough."""
TAKEN_BACK = 0.25
"""Share of the first epoch's loss that such a jump comes to at least."""
UNDONE, LEAST_UNDONE = 3.0, 1.0
"""Times the floor's loss, and nats above it, from which on the first epoch has undone what training began with."""
DIVERGED = 0.10
"""Share by which the training loss ended above where it began."""
LEARNED = 0.02
"""Share by which the training loss must have fallen for anything to have been learned."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing worth doing otherwise, or worth knowing."""

    kind: Kind
    message: str
    """What was seen, with its numbers."""
    mend: str
    """What to do."""


def judge_curves(history: Sequence[dict[str, Any]], plan: dict[str, Any], *, num_labels: int = 0) -> list[Advice]:
    """What the losses of a training say.

    Args:
        history: a dict an epoch, with train_loss and valid_loss, and valid_accuracy where items have labels.
        plan: its numbers; may be empty.
        num_labels: K, for the loss that label smoothing leaves to a perfect network; 0 where there are none.

    Returns:
        At most two pieces of advice; none for fewer than three epochs, or where a loss is no finite number.
    """
    train, valid = ([row[name] for row in history if is_number(row.get(name))] for name in ("train_loss", "valid_loss"))
    if len(history) < FEWEST_EPOCHS or not len(train) == len(valid) == len(history):
        return []
    unsteady = _judge_rate(train, valid, plan)
    if unsteady is not None:
        # Where the curves swing, they say nothing about how long to train.
        return [unsteady]
    accuracies = [row.get("valid_accuracy") for row in history]
    found = [_judge_learning(train, plan, num_labels), _judge_overfitting(train, valid, accuracies), _judge_end(valid, plan)]
    return [advice for advice in found if advice is not None]


def judge_start(attempt: dict[str, Any]) -> Advice | None:
    """Whether the first epoch undid what the exact head knew.

    Args:
        attempt: that was kept, with plan, history and gate.

    Returns:
        Advice for a pretrained network, whose training begins with the floor's answers.
    """
    plan, gate, history = (attempt.get(name) or {} for name in ("plan", "gate", "history"))
    first, last = (
        (history[place] or {}).get(name) if history else None for place, name in ((0, "train_loss"), (-1, "valid_loss"))
    )
    floor = gate.get("floor_loss")
    if gate.get("loss") != "log-loss" or plan.get("norm_statistics") != "kept" or attempt.get("strategy") == "head":
        return None
    if not (is_number(first) and is_number(last) and is_number(floor)):
        return None
    if first <= max(UNDONE * floor, floor + LEAST_UNDONE) or last <= floor + LEAST_CHANGE:
        return None
    rate = plan.get("head_rate")
    lower = f"--learning-rate {rate / 10:.1g}, a tenth of what it was" if is_number(rate) else "a lower --learning-rate"
    return Advice(
        kind="learning rate too high",
        message=f"The first epoch undid what the exact head knew: the training loss was {number(first)} then, and the floor's "
        f"is {number(floor)}; the learning rate is too high.",
        mend=f"{lower}, or none, for the rule's own.",
    )


def _judge_rate(train: list[float], valid: list[float], plan: dict[str, Any]) -> Advice | None:
    told = _describe_jump(train) or _describe_swings(train, valid)
    if not told:
        return None
    rate = plan.get("head_rate")
    lower = f"--learning-rate {rate / 3:.1g}, a third of what it was" if is_number(rate) else "a lower --learning-rate"
    return Advice(kind="learning rate too high", message=f"{told}: the learning rate is too high.", mend=f"{lower}.")


def _describe_jump(train: list[float]) -> str:
    for place, (before, after) in enumerate(zip(train, train[1:], strict=False)):
        if after - before > max(JUMP * before, TAKEN_BACK * train[0], LEAST_SWING):
            return f"The training loss jumped from {number(before)} to {number(after)} in epoch {place + 2}"
    if train[-1] - train[0] > max(DIVERGED * train[0], LEAST_SWING):
        return f"The training loss rose from {number(train[0])} to {number(train[-1])}"
    return ""


def _describe_swings(train: list[float], valid: list[float]) -> str:
    for name, losses in (("training", train), ("validation", valid)):
        inner = zip(losses, losses[1:], losses[2:], strict=False)
        spikes = sum(
            middle - max(before, after) > max(SPIKE * max(before, after), LEAST_SWING) for before, middle, after in inner
        )
        if spikes >= FEWEST_SPIKES:
            return f"The {name} loss swings up and down, {spikes} times by more than {percent(SPIKE)}"
    return ""


def _judge_learning(train: list[float], plan: dict[str, Any], num_labels: int) -> Advice | None:
    left = train[0] - _least_loss(plan.get("label_smoothing"), num_labels)
    if left <= LEAST_CHANGE or train[0] - min(train) >= LEARNED * left:
        return None
    rate = plan.get("head_rate")
    higher = f"--learning-rate {rate * 3:.1g}, three times what it was" if is_number(rate) else "a higher --learning-rate"
    return Advice(
        kind="nothing learned",
        message=f"The training loss did not fall ({number(train[0])} at first, {number(train[-1])} in the end): "
        "the network learned nothing beyond the head it began with.",
        mend=f"{higher}, or more --epochs; else --strategy extract, which is the same for less.",
    )


def _least_loss(smoothing: object, num_labels: int) -> float:
    """The loss of a perfect network under label smoothing: the entropy of its targets."""
    if not is_number(smoothing) or not 0 < smoothing < 1 or num_labels < 2:
        return 0.0
    other = smoothing / num_labels
    right = 1 - smoothing + other
    return -right * math.log(right) - (num_labels - 1) * other * math.log(other)


def _judge_overfitting(train: list[float], valid: list[float], accuracies: list[Any]) -> Advice | None:
    lowest = min(range(len(valid)), key=valid.__getitem__)
    last = _count_last(len(valid))
    limit = valid[lowest] + max(OVERFIT_RISE * valid[lowest], LEAST_CHANGE)
    if min(valid[-last:]) <= limit or train[-1] >= train[lowest]:
        return None
    told = (
        f"From epoch {lowest + 1} on, the validation loss rises ({number(valid[lowest])} to {number(valid[-1])}) "
        f"while the training loss falls ({number(train[lowest])} to {number(train[-1])}): the network learns by heart."
    )
    before, after = accuracies[lowest], accuracies[-1]
    if is_number(before) and is_number(after) and after >= before:
        told += (
            f" It grows too sure rather than wrong: of the validation items, {percent(before)} were labelled right then, "
            f"and {percent(after)} in the end."
        )
    mend = "training longer does not help; more labels or more augmented views would, and so may fewer blocks to train."
    return Advice(kind="over-fitting", message=told, mend=mend)


def _judge_end(valid: list[float], plan: dict[str, Any]) -> Advice | None:
    last = _count_last(len(valid))
    before = valid[-1 - last]
    if valid[-1] > min(valid) or before - valid[-1] <= max(STILL_FALLING * before, LEAST_CHANGE):
        return None
    fitted = str((plan.get("reasons") or {}).get("epochs", "")).startswith("what fits")
    more = "a longer --budget, such as 10m" if fitted else f"more epochs, such as --epochs {2 * len(valid)}"
    return Advice(
        kind="stopped too early",
        message=f"The validation loss was still falling at the end ({number(before)} to {number(valid[-1])} over the last "
        f"{last} epochs): the network had more to learn.",
        mend=f"{more}.",
    )


def _count_last(num_epochs: int) -> int:
    return min(max(FEWEST_LAST, round(LAST_PART * num_epochs)), num_epochs - 1)
