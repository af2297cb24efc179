"""A tuned network takes the frozen one's place: saved, compiled like any backbone, and its features computed. Loads torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from headstart.api.adaptation import Bottom
from headstart.api.writing import require_compiled
from headstart.backbones.files import CHANGES
from headstart.backbones.texts import TextTail
from headstart.data.targets import encode_targets
from headstart.errors import BackboneError, TuningError
from headstart.features import FeatureTable, compile_prefix, extract
from headstart.features.extract import Progress
from headstart.features.prefix import Prefix
from headstart.select.calibration import Calibration, calibrate
from headstart.select.floor import Floor
from headstart.select.scoring import scores_of
from headstart.select.tuned import Prepared, Trained
from headstart.tuning.lora import merge_adapters
from headstart.tuning.tensors import save_tensors

# The states that tuning saw are rounded to float16, and the saved network's are not.
SAME_SCORES = 0.05


def take_up(
    bottom: Bottom,
    folder: Path,
    prepared: Prepared,
    trained: Trained,
    *,
    calibration: Calibration | None,
    progress: Progress | None = None,
) -> tuple[Prefix, FeatureTable, Floor]:
    """Compile the tuned network, and extract every item's features by it.

    Args:
        bottom: the floor, with the frozen network.
        folder: where the changed tensors go.
        prepared: the strategy.
        trained: its network.
        calibration: of its scores, as a trial told it; None to take it from the validation items.
        progress: told of the items done.

    Returns:
        The compiled network, all items' features, and the head that answers on them.

    Raises:
        TuningError: if the weights went out of bounds, so that the network gives no finite scores or cannot be compiled.
        RuntimeError: if the compiled network scores otherwise than the trained one.
    """
    earlier = load_file(bottom.source.changes_path) if bottom.source.changes_path else {}
    path = folder / CHANGES
    scores = scores_of(trained.network, prepared.inputs, trained.valid_ids)
    save_tensors(earlier | changed_tensors(prepared, trained), path)
    _require_finite(scores, prepared)
    try:
        prefix = compile_prefix(bottom.source.with_changes(path), image_size=bottom.settings.image_size).wait()
        require_compiled(prefix)
    except BackboneError as error:
        # The same network with its own weights was compiled before, so it is the tuned weights that are at fault.
        raise _diverged(prepared, "the tuned network could not be compiled, and the untuned one could") from error
    samples = [bottom.dataset.by_id[id_] for id_ in bottom.table.ids]
    table = extract(prefix, bottom.table.preprocess, samples, views=bottom.table.views, progress=progress)
    floor, head = trained.start, trained.network.head.as_head()
    _compare(scores, head.scores(replace(table, vectors=table.vectors[:, :1]).features(floor.block, trained.valid_ids)))
    if calibration is None:
        found = head.scores(table.features(floor.block, trained.valid_ids)).astype(np.float64)
        truth = encode_targets(bottom.dataset, trained.valid_ids, floor.labels)
        calibration = calibrate(found, truth, task=bottom.dataset.task, num_labels=len(floor.labels))
    return prefix, table, replace(floor, head=head, calibration=calibration)


def _require_finite(scores: np.ndarray, prepared: Prepared) -> None:
    if not np.isfinite(scores).all():
        raise _diverged(prepared, "the tuned network gives scores that are no finite numbers")


def _diverged(prepared: Prepared, seen: str) -> TuningError:
    """The error for weights that training drove out of bounds; the learning rate is the likely cause."""
    plan = prepared.plan
    return TuningError(
        f"training with strategy {plan.strategy!r} diverged: {seen}. The learning rate {plan.head_rate:.3g} is too high.",
        expected="a training whose weights stay within bounds.",
        mend=f"--learning-rate {plan.head_rate / 10:.1g}, a tenth of what it was, or leave it out.",
    )


def changed_tensors(prepared: Prepared, trained: Trained) -> dict[str, torch.Tensor]:
    """The tensors of the backbone that training changed, by the backbone's own names.

    Args:
        prepared: with the source's tail.
        trained: the network.
    """
    tail = trained.network.tail
    if tail is None:
        return {}
    if prepared.plan.strategy == "lora":
        merge_adapters(tail)
    before = prepared.tail
    if isinstance(tail, TextTail) and isinstance(before, TextTail):
        tail, before = tail.settled(), before.settled()
    source = before.network.state_dict()
    return {
        name.removeprefix(prepared.tail.own_prefix): tensor.cpu().contiguous()
        for name, tensor in tail.network.state_dict().items()
        if not torch.equal(tensor.cpu(), source[name])
    }


def _compare(trained: np.ndarray, saved: np.ndarray) -> None:
    """The compiled network must score as the trained one did."""
    worst = float(np.abs(trained - saved).max() / max(1.0, float(np.abs(trained).max())))
    if not worst <= SAME_SCORES:
        raise RuntimeError(f"the compiled network scores otherwise than the trained one, by {worst:.1e} of the largest score")
