"""One strategy, trained: its network, its batches, and the tensors that it changed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.backbones.causal import CausalBackbone
from headstart.language.network import WritingNetwork
from headstart.language.packing import Blocks
from headstart.language.states import make_batches
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.stopping import EarlyStopping, kept_epoch
from headstart.tuning.checkpoint import Checkpoint
from headstart.tuning.loop import tune
from headstart.tuning.lora import adapt_layers, merge_layers
from headstart.tuning.plan import TuningPlan

_TAIL = "body.encoder.network."


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What became of a strategy."""

    strategy: str
    changes: dict[str, torch.Tensor]
    """Tensors that training changed, by the names of the network they belong to."""
    history: list[dict[str, Any]]
    plan: TuningPlan
    why_stopped: str
    kept_epoch: int | None
    """Counted from 0."""
    seconds: float
    told: str
    """Whether the frozen part ran once or anew in each epoch, in words."""


def train(
    backbone: CausalBackbone,
    blocks: tuple[Blocks, Blocks],
    plan: TuningPlan,
    *,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train a strategy; the backbone stays as it is.

    Args:
        backbone: where it begins.
        blocks: to learn from, and to end the training by.
        plan: with the strategy.
        folder: for states that are kept while it trains.
        callbacks: told of every step.
        checkpoint: where each epoch's end is kept.

    Returns:
        The changed tensors, and the course of the training.
    """
    learned, watched = blocks
    first = None if not plan.strategy.startswith("last:") else backbone.num_layers - int(plan.strategy[5:])
    batches = make_batches(backbone, learned, watched, first=first, folder=folder, passes=plan.epochs)
    network, source = _network(backbone, plan, first)
    stopping = EarlyStopping(patience=plan.patience or plan.epochs)
    every = [stopping, *callbacks]
    found = tune(network, batches.train, batches.watch, task="generate", plan=plan, callbacks=every, checkpoint=checkpoint)
    network.load_state_dict(found.weights)
    if plan.strategy == "lora":
        merge_layers(network.body)
    return Trained(
        strategy=plan.strategy,
        changes=_changed(backbone, network, source),
        history=found.history,
        plan=plan,
        why_stopped=found.why_stopped,
        kept_epoch=kept_epoch(every, len(found.history)),
        seconds=found.seconds,
        told=batches.told,
    )


def _network(backbone: CausalBackbone, plan: TuningPlan, first: int | None) -> tuple[WritingNetwork, Any]:
    """The network in training, and the whole copied model where there is one."""
    if first is not None:
        return WritingNetwork(backbone.tail(first), backbone.vocabulary, layers=backbone.layers), None
    model = copy.deepcopy(backbone.network)
    model.config.use_cache = False
    if plan.strategy == "lora":
        names = {module: name for name, module in model.base_model.named_modules()}
        layers = model.base_model.get_submodule(backbone.layers)
        chosen = [names[module] for module in layers.modules()]
        adapt_layers(model.base_model, chosen, plan)
    else:
        model.requires_grad_(True)
    return WritingNetwork(model.base_model, model.get_output_embeddings(), layers=backbone.layers), model


def _changed(backbone: CausalBackbone, network: WritingNetwork, model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Tensors that are others than the backbone's, by its names."""
    own = backbone.network.state_dict()
    if model is not None:
        now = model.state_dict()
    else:
        prefix = f"{backbone.network.base_model_prefix}."
        trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        state = network.state_dict()
        now = {prefix + name.removeprefix(_TAIL): state[name] for name in trained}
    moved = {name: tensor.detach().to(own[name].device) for name, tensor in now.items()}
    return {name: tensor.clone() for name, tensor in moved.items() if not torch.equal(tensor, own[name])}
