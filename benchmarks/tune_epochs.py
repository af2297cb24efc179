"""Our side: train the last two blocks on the states that the store keeps, and time it epoch by epoch.

The frozen part is compiled, run once for each item and view, and kept; those seconds are `prepare`, told apart. The floor is
found before the clock starts, as it is on the other side (peers/frozen_again.py).

Usage: python benchmarks/tune_epochs.py SPLIT.csv EPOCHS
prints one JSON line: {"prepare_seconds", "epoch_seconds", "train_loss", "valid_loss", "items", "views"}
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from headstart.runtime import raise_malloc_thresholds
from headstart.tuning.loop import tune
from start import make_start, read_words

STRATEGY = "last:2"


def main(table: str, epochs: int) -> None:
    start = make_start(Path(table), STRATEGY, epochs)
    raise_malloc_thresholds()
    began = time.perf_counter()
    with start.prepare() as prepared:
        prepared_in = time.perf_counter() - began
        network = start.network(prepared)
        sets = [start.training_set(ids, prepared.inputs) for ids in (start.train_ids, start.valid_ids)]
        history = tune(network, *sets, task="single", plan=start.plan).history
    told = {
        "prepare_seconds": prepared_in,
        "epoch_seconds": [row["seconds"] for row in history],
        "train_loss": [row["train_loss"] for row in history],
        "valid_loss": [row["valid_loss"] for row in history],
        "items": [len(start.train_ids), len(start.valid_ids)],
        "views": start.plan.num_views,
        "block": start.floor.block,
        "note": prepared.note,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    words = read_words(__doc__, 2)
    main(words[0], int(words[1]))
