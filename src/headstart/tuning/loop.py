"""The loop: epochs of training and validation, plain and visible, on whatever device Accelerate finds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from headstart import runtime
from headstart.errors import HeadstartError, TuningError
from headstart.features.device import accelerator
from headstart.inference import ordered_map
from headstart.records import Task
from headstart.tuning.averaging import make_average
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from headstart.tuning.losses import Loss, count_right, make_loss
from headstart.tuning.memory import is_out_of_memory
from headstart.tuning.mixing import mix
from headstart.tuning.network import TunableNetwork
from headstart.tuning.optimiser import learning_rate_share, make_optimiser, pull_to_source, set_rates, unfreeze
from headstart.tuning.plan import TuningPlan
from headstart.tuning.training import Training, TrainingSet, ValidationData, epoch_order, in_batches


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training came to."""

    weights: dict[str, torch.Tensor]
    """By name, of the last epoch, or what a callback restored; averaged where the plan says so."""
    history: list[dict[str, Any]]
    """A dict an epoch: epoch, seconds, train_loss, valid_loss, valid_accuracy, learning_rate, and what callbacks added."""
    why_stopped: str
    seconds: float


def tune(
    network: TunableNetwork,
    train: TrainingSet,
    valid: TrainingSet,
    *,
    task: Task,
    plan: TuningPlan,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train a network from where it stands.

    Args:
        network: changed in place.
        train: what it learns from.
        valid: what it is watched on; nothing is learned from it.
        task: what the targets are.
        plan: every number.
        callbacks: told of every step, in this order.
        checkpoint: where each epoch's end is kept, and whether to go on from it; None keeps nothing.

    Returns:
        Weights and history.

    Raises:
        TuningError: if a loss is not finite, a callback raises, memory runs out at a batch of one, or the checkpoint is of
            another training.
    """
    started = time.perf_counter()
    runtime.raise_malloc_thresholds()
    loop = _Loop(network, train, valid, task, plan, callbacks)
    if checkpoint is not None:
        read_checkpoint(checkpoint, loop.training, loop.optimiser, loop.average, callbacks)
    loop.notify("on_train_begin", {})
    while loop.training.epoch < plan.epochs and not loop.training.stop_training:
        loop.run_epoch()
        if checkpoint is not None and loop.accelerator.is_main_process:
            write_checkpoint(checkpoint, loop.training, loop.optimiser, loop.average, callbacks)
    loop.settle()
    loop.notify("on_train_end", {})
    return Outcome(
        weights=loop.training.weights(),
        history=loop.training.history,
        why_stopped=loop.training.why_stopped,
        seconds=time.perf_counter() - started,
    )


class _Loop:
    def __init__(
        self,
        network: TunableNetwork,
        train: TrainingSet,
        valid: TrainingSet,
        task: Task,
        plan: TuningPlan,
        callbacks: Sequence[Callback],
    ) -> None:
        self.accelerator = make_accelerator()
        self.plan, self.task, self.train, self.valid, self.callbacks = plan, task, train, valid, callbacks
        scale = float(train.targets.std()) if task == "value" else 1.0
        self.loss: Loss = make_loss(task, label_smoothing=plan.label_smoothing, scale=scale or 1.0)
        self.plain_loss: Loss = make_loss(task, scale=scale or 1.0)
        self.training = Training(network=network, task=task, plan=plan)
        self.optimiser = make_optimiser(network, plan)
        self.network, self.optimiser = self.accelerator.prepare(network, self.optimiser)
        self.training.optimiser = self.optimiser
        self.source = {name: p.detach().clone() for name, p in network.named_parameters()} if plan.l2_sp else {}
        self.average = make_average(network, plan)
        self.micro_batch = plan.batch_size
        self.chances = _chances(train, plan)
        watched = ValidationData(ids=valid.ids, targets=valid.targets, inputs=valid.inputs)
        for callback in callbacks:
            callback.model, callback.validation_data = self.training, watched

    def notify(self, hook: str, *arguments: Any) -> None:  # noqa: ANN401 - as the hook takes them
        for callback in self.callbacks:
            try:
                getattr(callback, hook)(*arguments)
            except HeadstartError:
                raise
            except Exception as error:
                raise TuningError(
                    f"the callback {type(callback).__name__} failed in {hook}: {type(error).__name__}: {error}",
                    expected="a callback that runs through.",
                    mend=f"correct {type(callback).__name__}.{hook}; --resume goes on from the last epoch's end.",
                ) from error

    def run_epoch(self) -> None:
        epoch, started = self.training.epoch, time.perf_counter()
        torch.manual_seed(int(np.random.SeedSequence([self.plan.seed, epoch]).generate_state(1)[0]))
        unfreeze(self.training.network, self.plan, epoch)
        self.notify("on_epoch_begin", epoch, {})
        train_loss = self._train(epoch)
        if self.average is not None:
            self.average.after_epoch(self.training.network, epoch)
        with self._averaged_weights():
            logs: dict[str, Any] = {"epoch": epoch, "train_loss": train_loss, **self._validate()}
            logs |= {"learning_rate": self.training.learning_rate, "seconds": time.perf_counter() - started}
            self.notify("on_epoch_end", epoch, logs)
        self.training.history.append(dict(logs))
        self.training.epoch += 1

    def settle(self) -> None:
        """Take up the weights that were validated, where they are not those of the last step."""
        if self.average is not None:
            self.training.set_weights(self.average.weights())

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Validation and the callbacks after it see the weights that will be kept."""
        if self.average is None:
            yield
            return
        own = self.training.weights()
        self.training.set_weights(self.average.weights())
        yield
        self.training.set_weights(own)

    def _train(self, epoch: int) -> float:
        self.network.train()
        order = epoch_order(len(self.train.ids), seed=self.plan.seed, epoch=epoch, weights=self.chances)
        batches = in_batches(order, self.plan.batch_size)
        view = epoch % self.plan.num_views if self.plan.num_views else None
        total, count = 0.0, 0
        for number, (rows, inputs) in enumerate(self._loaded(self.train, batches, view)):
            share = learning_rate_share((epoch + number / len(batches)) / self.plan.epochs, self.plan)
            self.training.scheduled_rate = self.plan.head_rate * share
            set_rates(self.optimiser, self.training.learning_rate)
            logs: dict[str, Any] = {"size": len(rows), "learning_rate": self.training.learning_rate}
            self.notify("on_batch_begin", number, logs)
            loss = self._step_within_memory(rows, inputs, [self.plan.seed, epoch, number])
            logs["loss"] = loss
            self.notify("on_batch_end", number, logs)
            if not math.isfinite(loss) and not self.training.stop_training:
                raise _not_finite(loss, epoch, number, self.training.learning_rate)
            total, count = total + loss * len(rows), count + len(rows)
            if self.average is not None:
                self.average.after_batch(self.training.network)
            if self.training.stop_training:
                break
        return total / count

    def _loaded(
        self, items: TrainingSet, batches: list[np.ndarray], view: int | None
    ) -> Iterator[tuple[np.ndarray, tuple[torch.Tensor, ...]]]:
        """Batches of this process's share, the next one loaded while one is worked on."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes

        def load(rows: np.ndarray) -> tuple[np.ndarray, tuple[torch.Tensor, ...]]:
            own = rows[rank::world]
            return own, tuple(torch.from_numpy(part) for part in items.inputs.load([items.ids[row] for row in own], view))

        return ordered_map(load, batches, num_workers=1)

    def _step_within_memory(self, rows: np.ndarray, inputs: tuple[torch.Tensor, ...], seed: list[int]) -> float:
        """One step of the optimiser, in as many parts as memory asks for."""
        while True:
            try:
                return self._step(rows, inputs, seed)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_batch <= 1:
                    raise _out_of_memory(error) from error
            self.micro_batch = max(1, self.micro_batch // 2)
            self.optimiser.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _step(self, rows: np.ndarray, inputs: tuple[torch.Tensor, ...], seed: list[int]) -> float:
        targets = self._targets(self.train, rows)
        mixed, lossy = mix(inputs, targets, self.loss, self.plan, np.random.default_rng(seed))
        weights = self._class_weights(rows)
        total = 0.0
        parts = in_batches(np.arange(len(rows)), self.micro_batch)
        for index, part in enumerate(parts):
            with nullcontext() if index == len(parts) - 1 else self.accelerator.no_sync(self.network):
                scores = self.network(*(self._on_device(tensor[part]) for tensor in mixed))
                losses = lossy(scores.float(), part) * self._on_device(weights[part])
                loss = losses.sum() / weights.sum().item()
                self.accelerator.backward(loss)
            total += float(loss.detach())
        if self.source:
            pull_to_source(self.training.network, self.source, self.plan.l2_sp)
        if self.plan.max_gradient_norm:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.plan.max_gradient_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return self._reduced(total) / self.accelerator.num_processes

    def _validate(self) -> dict[str, float]:
        self.notify("on_validation_begin", {})
        self.network.eval()
        loss = right = 0.0
        batches = in_batches(np.arange(len(self.valid.ids)), 2 * self.plan.batch_size)
        with torch.no_grad():
            for rows, inputs in self._loaded(self.valid, batches, None):
                scores = self.network(*(self._on_device(tensor) for tensor in inputs)).float()
                targets = self._on_device(self._targets(self.valid, rows))
                loss += float(self.plain_loss(scores, targets).sum())
                right += count_right(self.task, scores, targets)
        count = len(self.valid.ids)
        logs = {"valid_loss": self._reduced(loss) / count, "valid_accuracy": self._reduced(right) / count}
        if self.task == "value":
            logs = {"valid_loss": logs["valid_loss"], "valid_rmse": math.sqrt(-logs["valid_accuracy"])}
        self.notify("on_validation_end", logs)
        return logs

    def _targets(self, items: TrainingSet, rows: np.ndarray) -> torch.Tensor:
        targets = items.targets[rows]
        return torch.from_numpy(targets if self.task == "single" else targets.astype(np.float32))

    def _class_weights(self, rows: np.ndarray) -> torch.Tensor:
        """How much each sample counts, (B,) float32."""
        if self.train.class_weights is None or self.plan.balance != "weights":
            return torch.ones(len(rows))
        return torch.from_numpy(self.train.class_weights[self.train.targets[rows]].astype(np.float32))

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        moved = tensor.to(self.accelerator.device)
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def _reduced(self, number: float) -> float:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return number
        return float(self.accelerator.reduce(torch.tensor(number, device=self.accelerator.device), "sum"))


def make_accelerator() -> Accelerator:
    """Accelerate on the device that features are computed on, in bfloat16 where an NVIDIA device has it."""
    device = accelerator()
    half = device == "cuda" and torch.cuda.is_bf16_supported()
    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if half else "no")


def _chances(train: TrainingSet, plan: TuningPlan) -> np.ndarray | None:
    """How often each sample is drawn, where classes are balanced by drawing."""
    if plan.balance != "sampler" or train.class_weights is None:
        return None
    return train.class_weights[train.targets]


def _not_finite(loss: float, epoch: int, batch: int, rate: float) -> TuningError:
    return TuningError(
        f"the loss is {loss} in epoch {epoch + 1}, batch {batch + 1}, at a learning rate of {rate:.3g}.",
        expected="a finite loss.",
        mend=f"a lower learning rate: --learning-rate {rate / 10:.1g}.",
    )


def _out_of_memory(error: BaseException) -> TuningError:
    return TuningError(
        f"memory runs out even for one sample at a time ({str(error).splitlines()[0][:200]}).",
        expected="room for one sample's activations and gradients.",
        mend="a smaller --image-size, fewer blocks (--strategy last:1), or a smaller backbone.",
    )
