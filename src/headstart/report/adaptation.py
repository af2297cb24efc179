"""What page, card and terminal tell of tuning: which strategies were tried, what became of each, and every number of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.report.attempted import describe_on_test, describe_skipped, list_attempted, list_attempts
from headstart.report.blocks import list_blocks
from headstart.report.words import is_number, number, percent, show

_NUMBERS = {
    "epochs": "epochs",
    "batch_size": "samples a step",
    "head_rate": "highest learning rate of the head",
    "backbone_rate": "highest learning rate of the last block",
    "block_decay": "factor from each block's rate to that of the block before",
    "weight_decay": "weight decay",
    "warm_up": "share of the steps in which the rates rise",
    "num_views": "augmented views of each training item",
    "label_smoothing": "label smoothing",
    "mixup": "mixup (alpha)",
    "cutmix": "cutmix (alpha)",
    "l2_sp": "pull back to the source weights",
    "averaging": "average of the weights",
    "ema_decay": "share of the past in the running average",
    "unfreeze_every": "epochs from one block to the next beginning to train",
    "norm_statistics": "statistics of normalisation layers",
    "max_gradient_norm": "longest gradient",
    "patience": "epochs without a lower validation loss before it ends",
    "interpolations": "shares of the tuned weights to choose from",
    "balance": "balance of rare labels",
    "lora_rank": "rank of the low-rank changes",
    "hidden": "hidden layers of the head",
    "dropout": "dropout in the head",
    "seed": "seed",
    "share_of_tuned_weights": "share of the tuned weights that was kept",
}
_REASONS = {
    "share_of_tuned_weights": "chosen on the validation items, between the weights it began with (0) and the tuned ones (1)",
}
_HIDDEN = {"strategy", "reasons", "kept_epoch"}
_ONLY_WITH = {"lora_rank": ("strategy", "lora"), "ema_decay": ("averaging", "ema")}


def describe_tuning(report: dict[str, Any]) -> str:
    """Say in a sentence or two what was done to the network, and why no more.

    Args:
        report: what report.json holds.

    Returns:
        Plain text; "" for a report that knows of no tuning.
    """
    tuning = report.get("tuning") or {}
    strategy = tuning.get("kept")
    if not strategy:
        return ""
    attempted = list_attempted(report)
    if strategy != "extract":
        kept = next((attempt for attempt in list_attempts(report) if attempt.get("kept")), {})
        told = f"{_describe_trained(report, show(strategy))}{_describe_share(kept.get('plan') or {})}"
        return f"{told} {describe_on_test(report)}".rstrip()
    hidden = next((attempt for attempt in list_attempts(report) if attempt.get("kept")), None)
    if hidden is not None:
        widths = _write_number((hidden.get("plan") or {}).get("hidden"))
        told = f"The backbone is as it came; on its frozen features a head with hidden layers ({widths}) was trained."
        return f"{told} {describe_on_test(report)}".rstrip()
    told = "The backbone is as it came, and only the head was solved. "
    if not attempted:
        return f"{told}No network was tuned: {_finish(show(tuning.get('reason') or 'no strategy was tried'))}"
    skipped = describe_skipped(list_attempts(report))
    more = f" Not tried: {_finish(skipped)}" if skipped else ""
    return f"{told}No tuned network was kept, because none is better beyond doubt.{more}"


def list_plan(attempt: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Every number of an attempt's plan.

    Args:
        attempt: out of report.json.

    Returns:
        (what it is, its value, why) of each.
    """
    plan = attempt.get("plan") or {}
    reasons = _REASONS | (plan.get("reasons") or {})
    about = plan | {"strategy": attempt.get("strategy")}
    return [
        (_NUMBERS.get(name, show(name).replace("_", " ")), _write_number(value), show(reasons[name]) if name in reasons else "")
        for name, value in plan.items()
        if name not in _HIDDEN and (name not in _ONLY_WITH or about.get(_ONLY_WITH[name][0]) == _ONLY_WITH[name][1])
    ]


def describe_losses(plan: dict[str, Any]) -> str:
    """Say what the two losses are of, where they are not of the same thing.

    Args:
        plan: of the attempt.

    Returns:
        Sentences, or "".
    """
    hard = []
    if is_number(plan.get("num_views")) and plan["num_views"]:
        hard.append("on augmented views")
    if is_number(plan.get("label_smoothing")) and plan["label_smoothing"]:
        hard.append("with smoothed labels")
    if any(is_number(plan.get(name)) and plan[name] for name in ("mixup", "cutmix")):
        hard.append("on mixed samples")
    told = f"Training is measured {' and '.join(hard)}, while it goes on; validation is not." if hard else ""
    average = {"ema": "running average", "swa": "average over the last epochs"}.get(str(plan.get("averaging")))
    return f"{told} Validation is of the weights' {average}.".strip() if average else told


def describe_scores(history: Sequence[dict[str, Any]]) -> str:
    """Say on which items the scores of a training were measured.

    Args:
        history: a dict an epoch.

    Returns:
        A sentence.
    """
    if any(name.startswith("train_") and name != "train_loss" for row in history for name in row):
        return "The validation items chose how far to go; the test items had no say."
    return "On the validation items, from which nothing was learned; they chose how far to go."


def describe_rates(plan: dict[str, Any]) -> str:
    """Say how the blocks' learning rates stand to that of the head, which is drawn.

    Args:
        plan: of the attempt.

    Returns:
        A sentence, or "".
    """
    if plan.get("strategy") == "contrastive":
        return "The last blocks', at the end of each epoch; the head is solved afterwards."
    head, backbone, decay = (plan.get(name) for name in ("head_rate", "backbone_rate", "block_decay"))
    if not (is_number(head) and is_number(backbone) and head > 0):
        return "The head's, at the end of each epoch."
    times = backbone / head
    share = f"{times:.3g} times" if times > 1 else f"{percent(times)} of"
    told = f"The head's, at the end of each epoch. The last block has {share} it"
    if is_number(decay) and decay < 1:
        told += f", and each block before it {percent(decay)} of the one behind"
    return f"{told}."


def _describe_trained(report: dict[str, Any], strategy: str) -> str:
    blocks = list_blocks(report)
    amount = f" ({blocks.told})" if blocks and blocks.told else ""
    if strategy == "full":
        return f"The whole network was trained together with its head{amount}."
    if strategy == "lora":
        return "Low-rank changes to the linear layers were trained together with the head, and merged into the weights."
    cut = (report.get("tuning") or {}).get("cut")
    if strategy == "contrastive":
        behind = f"the blocks behind {show(cut)}" if cut else "the whole network"
        return f"Pairs of items drew features of one label together by {behind}{amount}; then the head was solved on them."
    behind = f"Everything up to {show(cut)} stayed frozen; the blocks behind it" if cut else "The last blocks"
    return f"{behind} were trained together with the head{amount}."


def _describe_share(plan: dict[str, Any]) -> str:
    share = plan.get("share_of_tuned_weights")
    if not is_number(share) or share >= 1:
        return ""
    return (
        f" The weights that are kept lie {percent(share)} of the way from those it began with to the tuned ones: "
        "there the validation loss is lowest."
    )


def _finish(told: str) -> str:
    return told if told.endswith(".") else f"{told}."


def _write_number(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None | [] | ():
            return "none"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:g}" if value == 0 or 1e-5 <= abs(value) < 1e6 else number(value)
        case list() | tuple():
            return ", ".join(_write_number(entry) for entry in value)
        case _:
            return show(value)
