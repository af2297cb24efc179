"""Which strategy: the floor always, a tuned network where the data allow it, and only if the gate lets it pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.backbones.info import BackboneInfo
from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.heads.choose import Candidate
from headstart.records import Dataset, Splits
from headstart.select.gate import Verdict
from headstart.select.rules import (
    LEAST_ITEMS,
    LEAST_LABELS_A_CLASS,
    LEAST_LABELS_OF_PAIRS,
    MANY_ITEMS,
    MOST_LABELS_OF_PAIRS,
    Circumstances,
)

# On a CPU tuning may take four times what the floor took, and a minute in any case.
TIMES_THE_FLOOR, LEAST_SECONDS = 4.0, 60.0
ACCELERATED_SECONDS = 600.0
# Nats: where every answer is right out of fold and the loss is below this, nothing that tuning could gain would be seen.
NEXT_TO_NOTHING = 0.02


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A strategy that was tried, or why it was not."""

    strategy: str
    kept: bool
    reason: str
    seconds: float
    plan: dict[str, Any]
    verdict: Verdict | None = None
    history: tuple[dict[str, Any], ...] = ()
    code: str = ""
    """'over_budget' where it was not tried for lack of time, else ''."""
    needed_seconds: float | None = None
    """The least budget that it would take, where it was not tried for lack of time."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        told = {"strategy": self.strategy, "kept": self.kept, "reason": self.reason, "seconds": round(self.seconds, 3)}
        if self.code:
            told |= {"code": self.code, "needed_seconds": self.needed_seconds and round(self.needed_seconds, 1)}
        verdict = None if self.verdict is None else self.verdict.as_json()
        # JSON has neither NaN nor infinity, which the loss of a training that broke off may be.
        history = [{name: value if _is_json(value) else None for name, value in row.items()} for row in self.history]
        return told | {"plan": self.plan, "gate": verdict, "history": history}


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def budget_seconds(settings: FitSettings, *, floor_seconds: float, device: str) -> float:
    """How long tuning may take.

    Args:
        settings: with the user's budget, if any.
        floor_seconds: what the floor took, features included.
        device: what tuning runs on.
    """
    if settings.budget is not None:
        return settings.budget_seconds
    return max(LEAST_SECONDS, TIMES_THE_FLOOR * floor_seconds) if device == "cpu" else ACCELERATED_SECONDS


def why_good_enough(chosen: Candidate) -> str:
    """Why nothing is left for tuning to gain; '' where something is.

    Args:
        chosen: the floor's head, as cross-validation saw it.
    """
    loss = chosen.cv_log_loss
    if chosen.cv_accuracy != 1.0 or loss is None or loss > NEXT_TO_NOTHING:
        return ""
    told = f"on the folds that chose it the floor gets every item right, with a log-loss of {loss:.4f}"
    return f"{told}: next to nothing is left to gain"


def propose(dataset: Dataset, splits: Splits, facts: Circumstances) -> tuple[tuple[str, ...], str]:
    """Which strategies are worth trying, the most that may be gained first; and why none is, where none is.

    Args:
        dataset: the samples.
        splits: who trains.
        facts: of data, device and network.
    """
    if not splits.test:
        return (), f"too few items to tune: {splits.origin}"
    if facts.num_items < LEAST_ITEMS:
        return (), f"too few items to tune: {facts.num_items} train, fewer than {LEAST_ITEMS}"
    counts = Counter(label for id_ in splits.train for label in dataset.by_id[id_].labels)
    typical = float(np.median(list(counts.values()))) if counts else facts.num_items
    by_pairs: tuple[str, ...] = ()
    if facts.pretrained and LEAST_LABELS_OF_PAIRS <= typical <= MOST_LABELS_OF_PAIRS and not why_no_pairs(dataset, splits):
        by_pairs = ("contrastive",)
    if typical < LEAST_LABELS_A_CLASS and by_pairs:
        return by_pairs, ""
    if typical < LEAST_LABELS_A_CLASS:
        return (), f"too few labels to tune: {typical:g} a class, fewer than {LEAST_LABELS_A_CLASS}"
    if not facts.pretrained:
        return ("full",), ""
    # A small encoder of short texts trains as a whole in minutes: whether there is time for it is measured, not guessed.
    whole = facts.device != "cpu" or facts.num_items < MANY_ITEMS or facts.modality == "text"
    return (*by_pairs, *(("full", "last:2") if whole else ("last:2",))), ""


def why_no_pairs(dataset: Dataset, splits: Splits | None) -> str:
    """Why the data have no pairs of texts with one label that contrastive fine-tuning could learn from; '' where they have.

    Args:
        dataset: the samples.
        splits: who trains; None where that is not decided yet: kind and task alone are looked at.
    """
    if dataset.modality != "text":
        return f"the items are {'sounds' if dataset.modality == 'audio' else 'images'}"
    if dataset.task != "single":
        return f"the task is {dataset.task}"
    if splits is None:
        return ""
    counts = Counter(label for id_ in splits.train for label in dataset.by_id[id_].labels)
    lone = sorted(label for label, count in counts.items() if count < 2)
    if len(counts) < 2:
        return f"there is one label, {next(iter(counts), None)!r}"
    return f"label {lone[0]!r} has one text that trains" if lone else ""


def check_pairs(strategy: str, dataset: Dataset, splits: Splits | None) -> None:
    """Make sure the data have the pairs that a strategy learns from.

    Args:
        strategy: any.
        dataset: the samples.
        splits: who trains; None where that is not decided yet, and kind and task alone can be checked.

    Raises:
        SettingError: if the strategy is contrastive, and they have none.
    """
    why = why_no_pairs(dataset, splits) if strategy == "contrastive" else ""
    if why:
        more = ", or more labelled texts" if why_no_pairs(dataset, None) == "" else ""
        raise SettingError(
            f"strategy is 'contrastive', and {why}.",
            expected="texts with one label each, two labels or more, and two texts of each that train.",
            mend=f"--strategy auto{more}.",
        )


def possible(strategies: Sequence[str], info: BackboneInfo) -> tuple[str, ...]:
    """Those of some strategies that a backbone has blocks for; one whose blocks are all there are is the same as 'full'.

    Args:
        strategies: 'last:K', 'full' or 'lora'.
        info: of the backbone.
    """
    count = sum(block.num_parameters > 0 for block in info.blocks)
    if not count:
        return ()
    return tuple(each for each in strategies if not each.startswith("last:") or int(each.removeprefix("last:")) < count)


def check_strategy(strategy: str, info: BackboneInfo) -> str:
    """Make sure a backbone has the blocks that a strategy tunes.

    Args:
        strategy: 'auto', 'extract', 'last:K', 'full', 'lora' or 'contrastive'.
        info: of the backbone.

    Returns:
        The strategy; 'full' where last:K means every block.

    Raises:
        SettingError: if there are fewer blocks.
    """
    weighty = [block.name for block in info.blocks if block.num_parameters]
    if not weighty and strategy not in {"auto", "extract"}:
        raise SettingError(
            f"strategy is {strategy!r}, and {info.name} has no weights that could be tuned.",
            expected="extract: what it computes is not learned.",
            mend="--strategy extract, or another backbone.",
        )
    if not strategy.startswith("last:"):
        return strategy
    count = int(strategy.removeprefix("last:"))
    if count == len(weighty):
        return "full"
    if count > len(weighty):
        blocks = "block" if len(weighty) == 1 else "blocks"
        several = f"last:1 to last:{len(weighty) - 1}, counted from the end of {', '.join(weighty)}; or full for all."
        raise SettingError(
            f"strategy is {strategy!r}, and {info.name} has {len(weighty)} {blocks} with weights.",
            expected=several if len(weighty) > 1 else "extract or full: this network cannot be cut.",
            mend="--strategy last:2" if len(weighty) > 2 else "--strategy full",
        )
    return strategy
