"""Where a fit's trainings keep their state, and what tells one fit's from another's. Loads torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from headstart.api.adaptation import CHECKPOINTS, Bottom, checkpoint_name
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.plan import TuningPlan


def make_checkpoint(bottom: Bottom, folder: Path, plan: TuningPlan, *, cut: str | None, name: str) -> Checkpoint:
    """The checkpoint of one training of a fit.

    Args:
        bottom: the floor, with all it stands on.
        folder: of the fit.
        plan: of the training.
        cut: the last frozen block, if any.
        name: of the training.
    """
    info = bottom.prefix.spec.info
    told = {name: str(value) for name, value in plan.as_json().items() if name != "reasons"}
    about = {
        "backbone": f"{info.name} ({info.sha256[:12]})",
        "data": f"{bottom.dataset.source} ({_digest(bottom)})",
        "input": ", ".join(f"{name} {value}" for name, value in bottom.table.preprocess.describe().items()),
        "features": bottom.floor.block,
        "cut": str(cut),
        **told,
    }
    path = folder / CHECKPOINTS / f"{checkpoint_name(name)}.pt"
    return Checkpoint(path=path, about=about, resume=bottom.settings.resume)


def _digest(bottom: Bottom) -> str:
    """Tells these items, labels and sides from others."""
    told = [
        [id_, bottom.table.hashes[id_], bottom.dataset.by_id[id_].labels, bottom.dataset.by_id[id_].value]
        for id_ in (*bottom.splits.train, *bottom.splits.valid)
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
