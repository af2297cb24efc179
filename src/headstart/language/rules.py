"""The numbers of a language model's training, by the size of corpus and network; and which strategies are worth trying."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

from headstart.backbones.causal import CausalBackbone
from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.tuning.plan import TuningPlan

MOST_CONTEXT = 256
"""Tokens of a block on a CPU: attention grows with the square, and most texts say what they say in less."""
BATCH_SIZE = 8
NUM_STEPS = 600
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
PATIENCE = 2
# Rates of a network 256 wide; they fall with the width, since each weight of a wider layer adds to more (Yang et al. 2022,
# arXiv 2203.03466). Pretrained GPT-2, 768 wide, is commonly tuned with 5e-5 to 2e-4.
RATES = {"last": 1e-3, "full": 5e-4, "lora": 2e-3}
RATE_WIDTH = 256
# By default a strategy that trains everything is tried where its epochs take no longer than this.
LEAST_BUDGET_SECONDS = 120.0
BUDGET_OF_FIRST = 4.0


def context_of(backbone: CausalBackbone, settings: FitSettings) -> int:
    """Tokens of a block.

    Args:
        backbone: that reads so many at once at most.
        settings: with the context asked for, if any.

    Raises:
        SettingError: if more are asked for than it can read.
    """
    if settings.context is None:
        return min(backbone.max_tokens, MOST_CONTEXT)
    if settings.context > backbone.max_tokens:
        raise SettingError(
            f"context is {settings.context}, and {backbone.info.name} reads {backbone.max_tokens} tokens at once.",
            expected=f"a number of tokens from 8 to {backbone.max_tokens}.",
            mend=f"--context {min(backbone.max_tokens, MOST_CONTEXT)}, or leave it out.",
        )
    return settings.context


def strategies_for(backbone: CausalBackbone, settings: FitSettings) -> list[str]:
    """What to train: what is asked for; for 'auto', the last third of the layers, then everything.

    Args:
        backbone: with its layers.
        settings: with the strategy.

    Returns:
        Names; none for 'extract'.

    Raises:
        SettingError: if more layers are asked for than there are.
    """
    strategy, count = settings.strategy, backbone.num_layers
    if strategy == "extract":
        return []
    if strategy not in {"auto", "full", "lora"} and not strategy.startswith("last:"):
        raise SettingError(
            f"strategy is {strategy!r}, and the task is to write.",
            expected="auto, extract, last:K, full or lora.",
            mend="--strategy auto",
        )
    if strategy == "auto":
        return [f"last:{math.ceil(count / 3)}", "full"]
    if strategy.startswith("last:") and int(strategy[5:]) > count:
        raise SettingError(
            f"strategy is {strategy!r}, and {backbone.info.name} has {count} layers.",
            expected=f"last:1 to last:{count}, full or lora.",
            mend=f"--strategy last:{count}, or full, which trains the embeddings, too.",
        )
    return [strategy]


def plan_for(strategy: str, *, num_blocks: int, width: int, settings: FitSettings) -> TuningPlan:
    """Choose every number of a training.

    Args:
        strategy: 'last:K', 'full' or 'lora'.
        num_blocks: to learn from.
        width: H, of the network.
        settings: whose epochs, batch size, learning rate and tuning overrule the rules.

    Raises:
        SettingError: if an overruling number cannot work, or is not for texts that are written.
    """
    batch_size = settings.batch_size or min(BATCH_SIZE, num_blocks)
    steps = math.ceil(num_blocks / batch_size)
    epochs = settings.epochs or min(max(round(NUM_STEPS / steps), FEWEST_EPOCHS), MOST_EPOCHS)
    rate = settings.learning_rate or RATES[re.split(":", strategy)[0]] * min(1.0, RATE_WIDTH / width)
    numbers: dict[str, Any] = {
        "strategy": strategy,
        "epochs": epochs,
        "batch_size": batch_size,
        "head_rate": rate,
        "backbone_rate": rate,
        "weight_decay": 0.01,
        "interpolations": (1.0,),
        "patience": PATIENCE,
        "seed": settings.seed,
    }
    given = dict(settings.tuning)
    known = {field.name for field in fields(TuningPlan)} - _NOT_FOR_WRITING
    unknown = sorted(given.keys() - known)
    if unknown:
        raise SettingError(
            f"tuning has {', '.join(unknown)}, which a language model's training does not have.",
            expected=f"any of {', '.join(sorted(known - {'strategy', 'reasons'}))}.",
            mend="leave it out.",
        )
    return TuningPlan(**{**numbers, **given})


_NOT_FOR_WRITING = {
    "num_views",
    "mirrored",
    "label_smoothing",
    "mixup",
    "cutmix",
    "norm_statistics",
    "interpolations",
    "balance",
    "hidden",
    "dropout",
}
