"""Every number of a training as a rule of the data's size, so that nobody needs to choose one.

In the manner of BiT's HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370): the number of steps, not of epochs, follows the
number of samples. Rates and decays are common practice for AdamW.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from typing import Any

from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.records import Modality
from headstart.tuning.plan import TuningPlan

# Fewer labels a class than this, and a tuned network seldom beats an exact head: with 8 a class a fine-tuned large model lost
# 8 points to a linear probe, with 64 it gained 6 (SetFit's own results, 10 seeds of 6 tasks).
LEAST_LABELS_A_CLASS = 20
LEAST_ITEMS = 50
# From here on a CPU tunes no whole network.
MANY_ITEMS = 2_000
# BiT mixes samples only from this size on.
MIXUP_ITEMS = 20_000
FEWEST_EPOCHS, MOST_EPOCHS = 5, 100
# Labels are smoothed from so many classes on; always for a network, which begins with a solved head and so with hardly any loss
# left to learn from: smoothed targets always leave some.
MANY_CLASSES = 11
FEWEST_EPOCHS_OF_TEXTS = 2
# Numbers of a plan that only pictures can be given.
MIXTURES = ("mixup", "cutmix")
FOR_PICTURES = ("num_views", *MIXTURES)
# A small encoder wants higher rates than BERT itself, which was tuned with 2e-5 to 5e-5 (Devlin et al. 2018, appendix A.3).
TEXT_RATES = {"head_rate": 1e-4, "backbone_rate": 1e-4, "block_decay": 0.9, "weight_decay": 1e-2}
# Of a table of word vectors, whose root mean square is 1: a vector trains only in the batches that hold its word, and the head
# begins solved.
WORD_RATES = {"head_rate": 1e-4, "backbone_rate": 1e-2, "weight_decay": 0.0}
# Of pairs: a few large steps of batches in which every two texts are a pair. Somewhat more than the last half of the blocks.
PAIR_RATES = {"head_rate": 6e-4, "backbone_rate": 6e-4, "weight_decay": 1e-2}
PAIR_BATCH, SHARE_BY_PAIRS = 32, 0.6
# For each label, and at most: of two kinds of film reviews 4 steps tell as much as 10; of ten kinds of fortunes too little.
PAIR_STEPS_A_LABEL, MOST_PAIR_STEPS = 2, 10
# Of each label in a batch, on average, so that it has pairs of one label.
TEXTS_OF_A_LABEL = 4
# Labels a class between which SetFit's own results have contrastive fine-tuning ahead of a linear probe (six tasks, 10 seeds).
LEAST_LABELS_OF_PAIRS, MOST_LABELS_OF_PAIRS = 8, 64
# Of a head that is trained alone, on features that stay as they are.
HEAD_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the rules go by."""

    num_items: int
    num_classes: int
    device: str
    """'cpu', 'cuda' or 'mps'."""
    pretrained: bool
    transformer: bool
    """Whether most of the weights are of linear layers; such networks want lower rates than convolutional ones."""
    modality: Modality = "image"


def make_plan(strategy: str, facts: Circumstances, settings: FitSettings) -> TuningPlan:
    """Choose every number of a training.

    Args:
        strategy: 'last:K', 'full', 'lora', 'contrastive' or 'head'.
        facts: of data, device and network.
        settings: whose epochs, learning_rate and batch_size overrule the rules.

    Returns:
        The plan, with reasons.

    Raises:
        SettingError: if an overruling number cannot work.
    """
    # A head on features that stay as they are learns from random weights in as many steps as a network that is tuned.
    by_pairs = strategy == "contrastive"
    by_labels = min(PAIR_STEPS_A_LABEL * facts.num_classes, MOST_PAIR_STEPS)
    steps = by_labels if by_pairs else _num_steps(facts if strategy != "head" else replace(facts, pretrained=True))
    batch_size = settings.batch_size or (
        min(max(PAIR_BATCH, TEXTS_OF_A_LABEL * facts.num_classes), facts.num_items) if by_pairs else _batch_size(facts)
    )
    epochs = settings.epochs or min(max(math.ceil(steps * batch_size / facts.num_items), _fewest_epochs(facts)), MOST_EPOCHS)
    numbers: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        **_rates(strategy, facts),
        "label_smoothing": 0.1 if not by_pairs and facts.num_classes >= (MANY_CLASSES if strategy == "head" else 1) else 0.0,
        "mixup": 0.1 if facts.num_items >= MIXUP_ITEMS and facts.modality == "image" else 0.0,
        "num_views": _num_views(strategy, facts, epochs),
        "norm_statistics": "kept" if facts.pretrained else "updated",
        "averaging": "ema" if facts.pretrained and not by_pairs else "none",
        "hidden": settings.hidden_layers,
        "dropout": settings.head_dropout,
        "interpolations": (0.25, 0.5, 0.75, 1.0) if facts.pretrained and strategy not in {"head", "contrastive"} else (1.0,),
    }
    reasons = {
        "epochs": "as asked" if settings.epochs else f"{steps} steps of {batch_size} for {facts.num_items} samples",
        "head_rate": "as asked"
        if settings.learning_rate is not None
        else ""
        if by_pairs
        else "the head begins solved, and moves by little",
        "num_views": "" if numbers["num_views"] else f"{_what_trains(strategy, facts)} have no augmented views",
        "mixup": f"from {MIXUP_ITEMS:,} samples on" if facts.modality == "image" else "made of pictures only",
    }
    if facts.modality == "text" and strategy != "head":
        reasons["dropout"] = "the head's own; layers of the encoder that train keep the dropout of its configuration"
    asked = _overruling(settings, facts)
    numbers |= asked
    reasons |= dict.fromkeys(asked, "as asked")
    plan = TuningPlan(strategy=strategy, seed=settings.seed, reasons={k: v for k, v in reasons.items() if v}, **numbers)
    return plan if settings.learning_rate is None else with_rate(plan, settings.learning_rate)


def _what_trains(strategy: str, facts: Circumstances) -> str:
    return "texts" if facts.modality == "text" and strategy != "head" else "features"


def _overruling(settings: FitSettings, facts: Circumstances) -> dict[str, Any]:
    """The numbers that the user sets one by one."""
    free = {each.name for each in fields(TuningPlan)} - {
        "strategy",
        "seed",
        "reasons",
        "epochs",
        "batch_size",
        "hidden",
        "dropout",
    }
    for name, _ in settings.tuning:
        if name not in free:
            near = difflib.get_close_matches(str(name), free, n=1)
            raise SettingError(
                f"tuning has no number called {name!r}.",
                expected=f"one of {', '.join(sorted(free))}.",
                mend=f"did you mean {near[0]!r}?" if near else "leave it out; epochs, batch_size and seed are options of fit.",
            )
    asked = dict(settings.tuning)
    unfit = {"text": FOR_PICTURES, "audio": MIXTURES}.get(facts.modality, ())
    if wrong := [name for name in unfit if asked.get(name)]:
        items = "texts" if facts.modality == "text" else "sounds"
        raise SettingError(
            f"tuning asks for {wrong[0]} {asked[wrong[0]]!r}, and the items are {items}.",
            expected="0: mixtures are made of pictures, and views of pictures and sounds.",
            mend=f"leave {wrong[0]} out.",
        )
    return asked


def with_rate(plan: TuningPlan, head_rate: float) -> TuningPlan:
    """The plan with another learning rate of the head, the blocks' in proportion."""
    return replace(plan, head_rate=head_rate, backbone_rate=plan.backbone_rate * head_rate / plan.head_rate)


def with_epochs(plan: TuningPlan, epochs: int, reason: str) -> TuningPlan:
    """The plan with another number of epochs."""
    return replace(plan, epochs=epochs, reasons={**plan.reasons, "epochs": reason})


def _fewest_epochs(facts: Circumstances) -> int:
    return FEWEST_EPOCHS if facts.modality == "image" else FEWEST_EPOCHS_OF_TEXTS


def _num_steps(facts: Circumstances) -> int:
    factor = 1 if facts.pretrained else 3
    if facts.modality == "text" and facts.num_items >= 2_000:
        return 800 * factor
    if facts.num_items < 2_000:
        return 500 * factor
    return (1_500 if facts.num_items < MIXUP_ITEMS else 5_000) * factor


def _batch_size(facts: Circumstances) -> int:
    """Few samples make few steps an epoch; smaller batches make more of them."""
    if facts.num_items < 500:
        return 16
    return 32 if facts.num_items < 5_000 or facts.modality == "text" else 64


def _rates(strategy: str, facts: Circumstances) -> dict[str, float]:
    if strategy == "head":
        return {"head_rate": HEAD_RATE, "backbone_rate": HEAD_RATE, "weight_decay": 1e-2}
    if not facts.pretrained and facts.modality == "text":
        return {"head_rate": 5e-4, "backbone_rate": 5e-4, "weight_decay": 5e-2} if facts.transformer else WORD_RATES
    if not facts.pretrained:
        return {"head_rate": 2e-3, "backbone_rate": 2e-3, "weight_decay": 5e-2}
    if strategy == "contrastive":
        return PAIR_RATES
    if strategy == "lora":
        return {"head_rate": 1e-3, "backbone_rate": 1e-3, "weight_decay": 0.0}
    if facts.modality == "text":
        return TEXT_RATES if facts.transformer else WORD_RATES
    if facts.transformer:
        return {"head_rate": 1e-4, "backbone_rate": 5e-5, "block_decay": 0.75, "weight_decay": 5e-2}
    # The head is solved already; a higher rate for it undoes that before the blocks have moved.
    return {"head_rate": 1e-4, "backbone_rate": 1e-3, "weight_decay": 1e-2}


def _num_views(strategy: str, facts: Circumstances, epochs: int) -> int:
    if strategy == "head" or facts.modality == "text":
        return 0
    if strategy.startswith("last:"):  # kept in the store, so each costs a pass of the frozen part
        return 8 if facts.device != "cpu" else 2
    return epochs
