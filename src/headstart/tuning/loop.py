"""The loop: epochs of training and validation, plain and visible, on whatever device Accelerate finds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from headstart import runtime
from headstart.errors import TuningError
from headstart.inference import ordered_map
from headstart.records import AnyTask
from headstart.tuning.averaging import make_average
from headstart.tuning.callbacks.base import Callback, as_numbers, call, check_callbacks
from headstart.tuning.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from headstart.tuning.contrastive import count_alike, pair_losses
from headstart.tuning.device import make_accelerator, placed, total_of
from headstart.tuning.losses import Loss, count_right, make_loss, scale_of, score_of
from headstart.tuning.network import Trainable
from headstart.tuning.optimiser import learning_rate_share, make_optimiser, set_rates, unfreeze
from headstart.tuning.plan import TuningPlan
from headstart.tuning.stepping import LoadedBatch, Stepper
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
    network: Trainable,
    train: TrainingSet,
    valid: TrainingSet,
    *,
    task: AnyTask,
    plan: TuningPlan,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train a network from where it stands.

    The same network, data and plan give the same weights, whatever torch's random state is, and leave that as it was.

    Args:
        network: changed in place.
        train: what it learns from, at least one item.
        valid: what it is watched on, at least one item; nothing is learned from it.
        task: what the targets are.
        plan: every number.
        callbacks: told of every step, in this order.
        checkpoint: where the end of an epoch is kept, and whether to go on from it; None keeps nothing.

    Returns:
        Weights and history.

    Raises:
        TuningError: if there is nothing to train or validate on, a loss is not finite, a callback raises, memory runs out at a
            batch of one, or the checkpoint is damaged or of another training.
    """
    started = time.perf_counter()
    _refuse_empty(train, valid)
    runtime.raise_malloc_thresholds()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        loop = _Loop(network, train, valid, task, plan, callbacks)
        state = (loop.training, loop.average, callbacks)
        if checkpoint is not None:
            read_checkpoint(checkpoint, *state)
        loop.notify("on_train_begin", {})
        while loop.training.epoch < plan.epochs and not loop.training.stop_training:
            loop.run_epoch()
            if checkpoint is not None and loop.accelerator.is_main_process and loop.is_due(checkpoint.every):
                write_checkpoint(checkpoint, *state)
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
        network: Trainable,
        train: TrainingSet,
        valid: TrainingSet,
        task: AnyTask,
        plan: TuningPlan,
        callbacks: Sequence[Callback],
    ) -> None:
        self.plan, self.task, self.train, self.valid, self.callbacks = plan, task, train, valid, callbacks
        check_callbacks(callbacks)
        self.accelerator = make_accelerator()
        optimiser = make_optimiser(network, plan, device=self.accelerator.device.type)
        wrapped, optimiser = self.accelerator.prepare(network, optimiser)
        self.training = Training(
            network=network,
            task=task,
            plan=plan,
            optimiser=optimiser,
            labels=train.labels,
            num_batches=len(self._batches(np.arange(len(train.ids)))),
            is_main_process=self.accelerator.is_main_process,
        )
        self.average = make_average(network, plan)
        loss = make_loss(task, label_smoothing=plan.label_smoothing, scale=scale_of(task, train.targets))
        # Tokens are averaged over those of the set itself; values are told in one unit for both sets.
        unit = valid.targets if task == "generate" else train.targets
        self.plain_loss: Loss = make_loss(task, scale=scale_of(task, unit))
        self.count_right = partial(count_right, task)
        if plan.by_pairs:
            loss, self.plain_loss, self.count_right = pair_losses, pair_losses, partial(count_alike)
        self.stepper = Stepper(self.accelerator, wrapped, self.training, train, loss)
        self.chances = train.sample_chances(plan.balance)
        watched = ValidationData(ids=valid.ids, targets=valid.targets, inputs=valid.inputs)
        for callback in callbacks:
            callback.model, callback.validation_data = self.training, watched

    def notify(self, hook: str, *arguments: Any) -> None:  # noqa: ANN401 - as the hook takes them
        for callback in self.callbacks:
            call(callback, hook, *arguments)

    def run_epoch(self) -> None:
        epoch, started = self.training.epoch, time.perf_counter()
        unfreeze(self.training.network, self.plan, epoch)
        self._schedule(epoch)
        self.notify("on_epoch_begin", epoch, {})
        train_loss = self._train(epoch)
        if self.average is not None:
            self.average.after_epoch(self.training.network, epoch)
        with self._averaged_weights():
            logs: dict[str, Any] = {"epoch": epoch, "train_loss": train_loss, **self._validate()}
            logs |= {"learning_rate": self.training.learning_rate, "seconds": time.perf_counter() - started}
            self.notify("on_epoch_end", epoch, logs)
        self.training.history.append(as_numbers(logs))
        self.training.epoch += 1

    def is_due(self, every: int) -> bool:
        """Whether the epoch that has ended is one after which something is done that is done every so many, and in the end."""
        return self.training.epoch % every == 0 or self.training.epoch == self.plan.epochs or self.training.stop_training

    def settle(self) -> None:
        """Take up the weights that were validated, where they are not those of the last step."""
        if self.average is not None:
            self.training.set_weights(self.average.weights())

    def _train(self, epoch: int) -> float:
        self.training.network.train()
        order = epoch_order(len(self.train.ids), seed=self.plan.seed, epoch=epoch, weights=self.chances)
        batches = self._batches(order)
        view = epoch % self.plan.num_views if self.plan.num_views else None
        total, count = 0.0, 0
        for number, batch in enumerate(self._loaded(self.train, batches, view)):
            self._schedule(epoch + number / len(batches))
            size = len(batch.rows)
            logs: dict[str, Any] = {"size": size, "learning_rate": self.training.learning_rate}
            self.notify("on_batch_begin", number, logs)
            logs["learning_rate"] = self.training.learning_rate
            set_rates(self.training.optimiser, self.training.learning_rate)
            logs["loss"] = loss = self.stepper.step(batch, number)
            self.notify("on_batch_end", number, logs)
            if not math.isfinite(loss) and not self.training.stop_training:
                raise _not_finite(loss, epoch, number, self.training.learning_rate)
            if math.isfinite(loss):
                total, count = total + loss * size, count + size
            if self.average is not None:
                self.average.after_batch(self.training.network)
            if self.training.stop_training:
                break
        return total / count if count else math.nan

    def _batches(self, order: np.ndarray) -> list[np.ndarray]:
        return in_batches(order, self.plan.batch_size, fewest=self.accelerator.num_processes)

    def _validate(self) -> dict[str, float]:
        self.notify("on_validation_begin", {})
        network, device = self.training.network.eval(), self.accelerator.device
        loss = right = 0.0
        # What memory held with gradients, it holds without.
        batches = in_batches(np.arange(len(self.valid.ids)), self.training.micro_batch, fewest=self.accelerator.num_processes)
        with torch.no_grad():
            for batch in self._loaded(self.valid, batches, None):
                scores = network(*(placed(tensor, device) for tensor in batch.inputs)).float()
                targets = self.valid.tensors(batch.own, self.task).to(device)
                loss += float(self.plain_loss(scores, targets).sum())
                right += self.count_right(scores, targets)
        count = len(self.valid.ids)
        loss, right = (total_of(number, self.accelerator) / count for number in (loss, right))
        logs = {"valid_loss": loss, **score_of(self.task, loss, right)}
        self.notify("on_validation_end", logs)
        return logs

    def _schedule(self, epochs_done: float) -> None:
        """Move the rate by the plan; what callbacks make of it comes on top."""
        self.training.scheduled_rate = self.plan.head_rate * learning_rate_share(epochs_done / self.plan.epochs, self.plan)

    def _loaded(self, items: TrainingSet, batches: list[np.ndarray], view: int | None) -> Iterator[LoadedBatch]:
        """Batches with this process's share of the inputs, the next one loaded while one is worked on."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes

        def load(rows: np.ndarray) -> LoadedBatch:
            own = rows[rank::processes]
            state, pooled = items.inputs.load([items.ids[row] for row in own], view)
            return LoadedBatch(rows=rows, own=own, inputs=(torch.from_numpy(state), torch.from_numpy(pooled)))

        return ordered_map(load, batches, num_workers=1)

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


def _refuse_empty(train: TrainingSet, valid: TrainingSet) -> None:
    if not (train.ids and valid.ids):
        raise TuningError(
            f"there are {len(train.ids)} items to train on and {len(valid.ids)} to validate on.",
            expected="at least one of each.",
            mend="more labelled items, or --strategy extract, which needs no validation items.",
        )


def _not_finite(loss: float, epoch: int, batch: int, rate: float) -> TuningError:
    return TuningError(
        f"the loss is {loss} in epoch {epoch + 1}, batch {batch + 1}, at a learning rate of {rate:.3g}.",
        expected="a finite loss.",
        mend=f"a lower learning rate: --learning-rate {rate / 10:.1g}.",
    )
