"""One step of the optimiser on one batch, in as many parts as memory asks for."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from headstart.errors import TuningError
from headstart.memory import is_out_of_memory
from headstart.tuning.device import placed, total_of
from headstart.tuning.losses import Loss
from headstart.tuning.mixing import Inputs, PartLoss, mix
from headstart.tuning.optimiser import pull_to_source
from headstart.tuning.training import Training, TrainingSet, in_parts


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """A batch, and this process's share of it."""

    rows: np.ndarray
    """(B,) of the whole batch, in its set."""
    own: np.ndarray
    """(S,) of the share; all rows where there is one process."""
    inputs: Inputs
    """Of the share: state (S, …) and pooled features (S, P)."""


class Stepper:
    """Takes the steps of a training."""

    def __init__(
        self, accelerator: Accelerator, network: nn.Module, training: Training, train: TrainingSet, loss: Loss
    ) -> None:
        """Remember what all steps share.

        Args:
            accelerator: that prepared network and optimiser.
            network: as the accelerator gives it; may be a wrapper of the training's.
            training: with the optimiser, and the weights it begins with.
            train: what is learned from.
            loss: of scores and targets, one for each sample.
        """
        self._accelerator, self._network, self._training = accelerator, network, training
        self._train, self._loss, self._plan = train, loss, training.plan
        named = training.network.named_parameters() if self._plan.l2_sp else ()
        self._source = {name: parameter.detach().clone() for name, parameter in named}

    def step(self, batch: LoadedBatch, number: int) -> float:
        """Take one step; where memory runs out, again in parts half as large, which stay so from then on.

        Args:
            batch: with this process's share.
            number: of the batch in its epoch, from 0.

        Returns:
            The batch's mean loss. Where it is not finite, no step was taken.

        Raises:
            TuningError: if memory runs out even for one sample.
        """
        while True:
            try:
                return self._step(batch, number)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                most = min(self._training.micro_batch, len(batch.own))
                # Other processes wait for this one's gradients of the first try, so it cannot begin again.
                if most <= 1 or self._accelerator.num_processes > 1:
                    raise _out_of_memory(error, most) from error
            # Outside of the handler: until there, the error holds on to the activations of the step that failed.
            self._training.micro_batch = most // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _step(self, batch: LoadedBatch, number: int) -> float:
        training, plan, processes = self._training, self._plan, self._accelerator.num_processes
        seed = np.random.SeedSequence([plan.seed, training.epoch, number, self._accelerator.process_index])
        # Each step has its own randomness: neither a callback that draws nor a step that is taken again changes the next.
        torch.manual_seed(int(seed.generate_state(1)[0]))
        targets = self._train.tensors(batch.own, training.task)
        mixed, lossy = mix(batch.inputs, targets, self._loss, plan, np.random.default_rng(seed))
        weights = torch.from_numpy(self._train.sample_weights(batch.own, plan.balance))
        # Processes' gradients are averaged; so each divides by the whole batch's weight, not its share's.
        whole = float(self._train.sample_weights(batch.rows, plan.balance).sum()) / processes
        training.zero_gradients()
        total = 0.0
        parts = in_parts(len(batch.own), training.micro_batch)
        for index, part in enumerate(parts):
            with nullcontext() if index == len(parts) - 1 else self._accelerator.no_sync(self._network):
                losses = self._losses(mixed, lossy, part) * weights[part].to(self._accelerator.device)
                loss = losses.sum() / whole
                self._accelerator.backward(loss)
            total += float(loss.detach())
        mean = total_of(total, self._accelerator) / processes
        if math.isfinite(mean):
            self._apply()
        return mean

    def _losses(self, inputs: Inputs, lossy: PartLoss, part: np.ndarray) -> torch.Tensor:
        """Losses (P,) of some of a batch's samples."""
        network, device = self._training.network, self._accelerator.device
        alone = len(part) == 1
        if alone:
            network.rest_norms()  # the statistics of a single sample are none
        scores = self._network(*(placed(tensor[part], device) for tensor in inputs))
        if alone:
            network.train()
        return lossy(scores.float(), part)

    def _apply(self) -> None:
        """Move the weights along their gradients, which stay to be looked at until the next step."""
        if self._source:
            pull_to_source(self._training.network, self._source, self._plan.l2_sp)
        if self._plan.max_gradient_norm:
            self._accelerator.clip_grad_norm_(self._network.parameters(), self._plan.max_gradient_norm)
        self._training.optimiser.step()


def _out_of_memory(error: BaseException, num_samples: int) -> TuningError:
    told = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return TuningError(
        f"memory runs out with {num_samples} sample{'s' if num_samples > 1 else ''} at a time ({told}).",
        expected="room for the activations and gradients of one sample, or of each process's share of a batch.",
        mend="a smaller --image-size, fewer blocks (--strategy last:1), a smaller --batch-size, or a smaller backbone.",
    )
