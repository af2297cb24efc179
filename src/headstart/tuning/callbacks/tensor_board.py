"""A callback that writes what TensorBoard shows: curves, histograms, the graph, and the validation items' features."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingPackageError
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.monitor import count_of

if TYPE_CHECKING:
    import torch

# As many as TensorBoard draws.
NUM_BINS = 30
FEATURES, ITEMS = "features.tsv", "items.tsv"


class TensorBoard(Callback):
    """Writes a folder that `tensorboard --logdir` shows, also while training goes on.

    Scalars: every number of `logs`, at steps that count epochs from 1. Histograms: every weight that trains, under `weights/`,
    and its gradient in the epoch's last step, as it was applied, under `gradients/`. Graph: the operations of one pass, by
    layer. Projector: the features that the head sees of the validation items, with labels and ids, at the training's end.

    Args:
        log_dir: the folder; files of earlier trainings in it stay.
        histogram_freq: epochs from one set of histograms to the next; 0 for none.
        write_graph: whether to write the graph.
        embedded_items: how many validation items, the first ones, go to the projector; 0 for none.

    Raises:
        MissingPackageError: if tensorboard is not installed.
        SettingError: if an argument cannot work.

    Example:
        >>> headstart.fit("flowers/", strategy="last:2", callbacks=[TensorBoard("logs")])  # doctest: +SKIP
    """

    def __init__(
        self,
        log_dir: str | Path,
        *,
        histogram_freq: int = 1,
        write_graph: bool = True,
        embedded_items: int = 1000,
    ) -> None:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingPackageError("tensorboard", purpose="the TensorBoard callback") from error
        self._open_writer = EventFileWriter
        self.log_dir = Path(log_dir)
        self.histogram_freq = count_of("histogram_freq", histogram_freq)
        self.write_graph = write_graph
        self.embedded_items = count_of("embedded_items", embedded_items)
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Open a file, and draw the graph."""
        self._close()
        if not self.model.is_main_process:
            return
        self._writer = self._open_writer(str(self.log_dir))
        if self.model.history:
            self._hide_from(len(self.model.history) + 1)
        elif self.write_graph:
            self._add_graph()
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Write the numbers and histograms."""
        if self._writer is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, Real) and name != "epoch"}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        if self.histogram_freq and (epoch + 1) % self.histogram_freq == 0:
            trained = [(name, weight) for name, weight in self.model.network.named_parameters() if weight.requires_grad]
            values += _histograms("weights", trained)
            values += _histograms("gradients", ((name, weight.grad) for name, weight in trained))
        self._add(step=epoch + 1, summary=Summary(value=values))
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Write the projector's files, and close."""
        if self._writer is not None and self.embedded_items and self.model.task != "generate":
            self._project()
        self._close()

    def _add(self, **event: Any) -> None:  # noqa: ANN401 - the fields of an event
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), **event))

    def _hide_from(self, step: int) -> None:
        """Have TensorBoard forget what a training wrote that was killed after its last checkpoint."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._add(step=step, session_log=SessionLog(status=SessionLog.START))

    def _add_graph(self) -> None:
        from headstart.tuning.callbacks.graph import record_graph

        with self.model.evaluating():
            graph = record_graph(self.model.network, lambda: self.model.run(*self.validation_data.first()))
        self._add(graph_def=graph.SerializeToString())

    def _project(self) -> None:
        """Features and labels as TSV, with the projector's own description of them."""
        from tensorboard.plugins.projector import ProjectorConfig, visualize_embeddings

        ids = self.validation_data.ids[: self.embedded_items]
        rows = [[f"{value:.6g}" for value in row] for row in self._features(len(ids)).tolist()]
        targets = self.validation_data.targets[: len(ids)]
        named = [[self._label_of(target), _one_line(id_)] for id_, target in zip(ids, targets, strict=True)]
        _write_table(self.log_dir / FEATURES, rows)
        _write_table(self.log_dir / ITEMS, [["label", "item"], *named])
        config = ProjectorConfig()
        config.embeddings.add(tensor_name="validation features", tensor_path=FEATURES, metadata_path=ITEMS)
        visualize_embeddings(str(self.log_dir), config)

    def _features(self, count: int) -> torch.Tensor:
        """What the head is given of the first validation items, (count, D) float32 on the CPU."""
        import torch

        seen: list[torch.Tensor] = []
        head = self.model.network.get_submodule("head")
        hook = head.register_forward_pre_hook(lambda _head, given: seen.append(given[0].detach().float().cpu()))
        size = 2 * self.model.plan.batch_size
        try:
            with self.model.evaluating():
                for start in range(0, count, size):
                    ids = self.validation_data.ids[start : min(start + size, count)]
                    state, pooled = self.validation_data.inputs.load(ids, None)
                    self.model.run(torch.from_numpy(state), torch.from_numpy(pooled))
        finally:
            hook.remove()
        return torch.cat(seen)

    def _label_of(self, target: Any) -> str:  # noqa: ANN401 - a class, a row of 0 and 1, or a number
        labels = self.model.labels
        match self.model.task:
            case "single":
                return _one_line(labels[target]) if labels else str(target)
            case "multi":
                return "|".join(_one_line(labels[k]) if labels else str(k) for k in target.nonzero()[0]) or "none"
            case _:
                return f"{target:g}"

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _histograms(group: str, named: Iterable[tuple[str, torch.Tensor | None]]) -> list[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    found = ((name, None if tensor is None else _histogram(tensor)) for name, tensor in named)
    return [Summary.Value(tag=f"{group}/{name}", histo=histogram) for name, histogram in found if histogram is not None]


def _histogram(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - a protocol buffer of tensorboard's, which is loaded late
    """Counts in equal bins from the least to the greatest value; None if there is no value, or one that is not finite."""
    import torch
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    values = tensor.detach().float().flatten()
    if not len(values):
        return None
    low, high = (float(end) for end in values.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    width = (high - low) / NUM_BINS
    counts = values.histc(NUM_BINS, low, high).tolist() if width else [float(len(values))]
    limits = [low + width * (index + 1) for index in range(len(counts) - 1)]
    total, squares = float(values.sum(dtype=torch.float64)), float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
    return HistogramProto(
        min=low, max=high, num=len(values), sum=total, sum_squares=squares, bucket_limit=[*limits, high], bucket=counts
    )


def _write_table(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def _one_line(text: str) -> str:
    """Without the tabs and line ends that would end its cell."""
    return " ".join(text.split()) or "-"
