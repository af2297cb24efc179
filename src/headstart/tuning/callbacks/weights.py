"""Callbacks that keep weights in files."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any

from headstart.errors import SettingError
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.monitor import Mode, Monitor

SUFFIX = ".safetensors"


class ModelCheckpoint(Callback):
    """Writes the weights to a .safetensors file after each epoch that was the best so far, or after every epoch.

    `self.model.load_weights(path)` of any callback reads the file back; so does `safetensors.torch.load_file`.

    Args:
        path: of the file; may hold `{epoch}`, counted from 1, and any number of `logs`, as in `{epoch:02d}-{valid_loss:.3f}`.
        monitor: the number of `logs` that says which epoch is the best.
        mode: 'min' if less is better, 'max' if more is; 'auto' goes by the name.
        save_best_only: True keeps one file, the best epoch's. False writes every epoch's, each to its own file if the path
            holds `{epoch}`, else the last one's in place of the one before.

    Raises:
        SettingError: if an argument cannot work.

    Example:
        >>> best = ModelCheckpoint("best.safetensors", monitor="valid_accuracy")
        >>> every = ModelCheckpoint("weights/{epoch:02d}.safetensors", save_best_only=False)
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[best, every])  # doctest: +SKIP
    """

    def __init__(
        self, path: str | Path, *, monitor: str = "valid_loss", mode: Mode = "auto", save_best_only: bool = True
    ) -> None:
        self.path = str(path)
        if not self.path.endswith(SUFFIX):
            raise SettingError(
                f"the path of ModelCheckpoint is {self.path!r}.",
                expected=f"a name that ends in {SUFFIX}, which is what is written.",
                mend=f"ModelCheckpoint({self.path.removesuffix('.').partition('.')[0] + SUFFIX!r}), say.",
            )
        self._monitor = Monitor(monitor, mode)
        self.save_best_only = save_best_only
        self.best_path: Path | None = None
        """Of the best epoch's weights, once there is one."""

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Forget an earlier training, unless this one goes on from it."""
        if not self.model.history:
            self._monitor.best, self.best_path = None, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write the weights, if they are to be kept."""
        if not self.save_best_only:
            self._write(self._path_of(epoch, logs))
            return
        if not self._monitor.improved(self._monitor.read(logs)):
            return
        path, before = self._path_of(epoch, logs), self.best_path
        self._write(path)
        self.best_path = path
        if before is not None and before != path and self.model.is_main_process:
            before.unlink(missing_ok=True)

    def _path_of(self, epoch: int, logs: dict[str, Any]) -> Path:
        told = logs | {"epoch": epoch + 1}
        unknown = {name for _, name, _, _ in Formatter().parse(self.path) if name is not None} - told.keys()
        if unknown:
            raise SettingError(
                f"the path {self.path!r} of ModelCheckpoint names {', '.join(sorted(unknown))}, which no epoch's logs have.",
                expected=f"any of {', '.join(sorted(told))} in braces.",
                mend="weights-{epoch:02d}.safetensors, say.",  # noqa: RUF027 - a path as users write it
            )
        return Path(self.path.format(**told))

    def _write(self, path: Path) -> None:
        if not self.model.is_main_process:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place first: the best weights so far survive a crash in the middle.
        partial = path.with_name(f".{path.name}.partial")
        self.model.save_weights(partial)
        partial.replace(path)

    def state(self) -> dict[str, Any]:
        """The best value, and where its weights are."""
        return {"best": self.best, "best_path": None if self.best_path is None else str(self.best_path)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._monitor.best = state["best"]
        self.best_path = None if state["best_path"] is None else Path(state["best_path"])
