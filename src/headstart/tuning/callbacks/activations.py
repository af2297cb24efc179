"""A callback that keeps what every layer gives for one item."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from headstart.tuning.callbacks.base import Callback


class ActivationLogger(Callback):
    """Writes every layer's activations for the first validation sample to a .npz file after each epoch.

    A file has an array for each layer without layers of its own, by its name in the network, batch axis of 1 included, as
    float32 (whole numbers as they are). Where a layer gives several tensors `.0`, `.1` … follow its name; where it is
    used several times, `#2`, `#3` … follow from the second time on. Layers that one pass does not use are left out.

    Args:
        folder: of the files `epoch-0001.npz`, `epoch-0002.npz`, …; made if need be.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[ActivationLogger("activations")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Run the sample and write."""
        if self.model.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(self.folder / f"epoch-{epoch + 1:04d}.npz", allow_pickle=False, **self._activations())

    def _activations(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        times: Counter[str] = Counter()

        def keep(name: str, output: object) -> None:
            times[name] += 1
            used = name if times[name] == 1 else f"{name}#{times[name]}"
            found.update(_arrays(used, output))

        with ExitStack() as hooks, self.model.evaluating():
            for name, layer in self.model.named_layers():
                hook = layer.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
                hooks.callback(hook.remove)
            self.model.run(*self.validation_data.first())
        return found


def _arrays(name: str, output: object) -> dict[str, np.ndarray]:
    import torch

    if isinstance(output, list | tuple):
        parts = [_arrays(f"{name}.{index}", part) for index, part in enumerate(output)]
        return {key: array for part in parts for key, array in part.items()}
    if not isinstance(output, torch.Tensor):
        return {}
    kept = output.detach().cpu()
    return {name: (kept.float() if kept.is_floating_point() else kept).numpy().copy()}
