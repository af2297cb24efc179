"""What a strategy will take, predicted before torch is loaded: from rates measured earlier on this machine, or typical ones.

The unit is a pass: the time that the compiled network takes for an item, forward only, on all cores. Training by torch costs so
many passes for each item and epoch; that ratio varies little from machine to machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart import runtime
from headstart.backbones.info import BackboneInfo
from headstart.data.folds import VALID_FOLDS
from headstart.errors import CacheError
from headstart.records import Modality
from headstart.select.rules import FEWEST_EPOCHS, SHARE_BY_PAIRS
from headstart.tuning.plan import TuningPlan

# Folds of the gate, and the share of the rules' epochs that must fit the budget for so many; one means a single part held out.
FOLD_CHOICES = {5: 1.0, 3: 0.25, 1: 0.0}
HOLD_OUT_FOLDS = 5
# Fewer items held out than this can hardly show a gain, so no time is spent on asking them.
LEAST_HELD_OUT = 200
# Passes of an item and epoch where the whole network is trained on a CPU: measured with EfficientNet-lite0 (48 ms an item at
# 110 images a second) and MiniLM-L6.
PASSES: Mapping[Modality, float] = {"image": 5.5, "text": 4.0, "audio": 4.0}
# Of these, the share of each of the last blocks: a convolutional network's are small maps (2.3 ms an item for the last two).
SHARE_OF_A_BLOCK_OF_IMAGES = 0.03
# Loading torch, opening the network, and compiling the part before the cut.
START_SECONDS = 12.0
RATES = "rates.json"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast a strategy trains, as it was measured."""

    passes: float
    """Of the compiled network, for each item and epoch."""
    start_seconds: float
    """Before the first item."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a strategy takes."""

    least_seconds: float
    """The least budget that the gate and the last training fit into, with the start."""
    seconds_an_item: float
    """Of training, for each item and epoch."""
    measured: bool
    """Whether that is of this network on this machine."""


def predict_cost(
    plan: TuningPlan,
    info: BackboneInfo,
    *,
    num_items: int,
    has_valid: bool,
    items_per_second: float,
    rates: Mapping[str, Rate],
    started: bool = False,
) -> Cost:
    """Predict what a strategy takes.

    Args:
        plan: of the strategy, with all its epochs.
        info: of the backbone.
        num_items: that train.
        has_valid: whether the data bring validation items; else epochs are chosen on a part of those that train.
        items_per_second: of the compiled network, on all cores.
        rates: measured earlier, by strategy.
        started: whether torch is loaded and the network open.

    Returns:
        The cost.
    """
    known = rates.get(plan.strategy)
    seconds_a_pass = 1 / max(items_per_second, 1e-9)
    each = (known.passes if known else typical_passes(plan.strategy, info)) * seconds_a_pass
    start = 0.0 if started else known.start_seconds if known else START_SECONDS
    if plan.by_pairs or plan.strategy.startswith("last:"):
        start += (1 + plan.num_views) * num_items * seconds_a_pass
    training = min(
        each * num_items * share * min(plan.epochs, least)
        for _, share, least in fold_choices(plan, num_items, has_valid=has_valid)
    )
    return Cost(least_seconds=start + training, seconds_an_item=each, measured=known is not None)


def typical_passes(strategy: str, info: BackboneInfo) -> float:
    """Passes that an item takes in an epoch on a CPU, where nothing was measured.

    Args:
        strategy: 'last:K', 'full', 'lora' or 'contrastive'.
        info: of the backbone.
    """
    whole = PASSES[info.modality]
    if strategy == "contrastive":
        return whole * SHARE_BY_PAIRS
    if not strategy.startswith("last:"):
        return whole
    weighty = sum(block.num_parameters > 0 for block in info.blocks)
    share = SHARE_OF_A_BLOCK_OF_IMAGES if info.modality == "image" else 1 / max(weighty, 1)
    return whole * min(share * int(strategy.removeprefix("last:")), 1.0)


def fold_choices(plan: TuningPlan, num_items: int, *, has_valid: bool) -> list[tuple[int, float, int]]:
    """The numbers of folds that the gate can have, most first.

    Args:
        plan: of the strategy, with all its epochs.
        num_items: that train.
        has_valid: whether the data bring validation items.

    Returns:
        For each the folds, how often every item is trained on in an epoch of all trainings together, and the fewest epochs.
    """
    # Epochs are chosen on a part of the items, where the data bring none for that.
    learning = 1.0 if has_valid else 1 - 1 / VALID_FOLDS
    found = []
    for num_folds, share_of_epochs in FOLD_CHOICES.items():
        if num_folds == 1 and num_items / HOLD_OUT_FOLDS < LEAST_HELD_OUT:
            continue
        # All folds' items together, and in the end all items once more.
        share = learning * ((num_folds - 1 if num_folds > 1 else 1 - 1 / HOLD_OUT_FOLDS) + 1)
        found.append((num_folds, share, max(FEWEST_EPOCHS, int(share_of_epochs * plan.epochs))))
    return found


def read_rates(model_path: Path | None) -> dict[str, Rate]:
    """The rates that were measured of a compiled network.

    Args:
        model_path: of the compiled network, in the cache; None where torch runs it.

    Returns:
        By strategy; none where nothing was measured, or the file is damaged.
    """
    if model_path is None:
        return {}
    try:
        saved = json.loads(model_path.with_name(RATES).read_text(encoding="utf-8"))
        found = {str(strategy): Rate(**rate) for strategy, rate in saved.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    numbers = [number for rate in found.values() for number in (rate.passes, rate.start_seconds)]
    usable = all(isinstance(number, int | float) and math.isfinite(number) and number >= 0 for number in numbers)
    return found if usable else {}


def keep_rate(model_path: Path | None, strategy: str, rate: Rate) -> None:
    """Keep a rate beside the compiled network that it was measured with, where that can be written.

    Args:
        model_path: of the compiled network; None where torch runs it, and nothing is kept.
        strategy: whose rate it is.
        rate: as measured.
    """
    if model_path is None:
        return
    written = {name: asdict(known) for name, known in (read_rates(model_path) | {strategy: rate}).items()}
    with suppress(CacheError):
        runtime.atomic_write_text(model_path.with_name(RATES), json.dumps(written), error=CacheError)
