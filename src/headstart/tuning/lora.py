"""Low-rank adapters in a network's linear layers (Hu et al. 2021, arXiv 2106.09685), by PEFT: the one file that knows it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import nn

from headstart.backbones.parts import Tail
from headstart.errors import SettingError
from headstart.tuning.plan import TuningPlan

# With rank 16, the update is scaled by 1.
ALPHA = 4
LEAST_LINEAR_SHARE = 0.5


def adapt_linear_layers(tail: Tail, plan: TuningPlan, backbone: str) -> None:
    """Freeze a tail, and put a trainable adapter beside each of its linear layers.

    Adapters begin by changing nothing; what of them is random follows the plan's seed.

    Args:
        tail: changed in place.
        plan: with rank and seed.
        backbone: its name, for the message.

    Raises:
        SettingError: if less than half of the weights of linear and convolutional layers are in linear ones: the adapters would
            miss most of a convolutional network, whatever small linear layers it has.
    """
    linear = {name: module for name, module in tail.network.named_modules() if isinstance(module, nn.Linear)}
    share = _weights_of(linear.values()) / max(_weights_of(tail.network.modules()), 1)
    if share < LEAST_LINEAR_SHARE:
        raise SettingError(
            f"LoRA adapts linear layers, and of the weights of {backbone!r} {share:.0%} are in such layers.",
            expected="a transformer (ViT, DINOv2, Swin, …), with half of its weights or more in linear layers.",
            mend="--strategy last:2 or full, or a transformer: --backbone timm:vit_small_patch16_224 or all-minilm-l6-v2.",
        )
    adapt_layers(tail.network, list(linear), plan)


def adapt_layers(network: nn.Module, names: Collection[str], plan: TuningPlan) -> None:
    """Freeze a network, and put a trainable adapter beside some of its layers.

    Args:
        network: changed in place.
        names: of modules, of which those that are linear get one.
        plan: with rank and seed.
    """
    from peft import LoraConfig, inject_adapter_in_model

    network.requires_grad_(False)
    kinds = {name: type(module).__name__ for name, module in network.named_modules() if name in names}
    linear = [name for name, kind in kinds.items() if isinstance(network.get_submodule(name), nn.Linear)]
    # GPT-2's own linear layers, whose weights lie the other way round.
    turned = [name for name, kind in kinds.items() if kind == "Conv1D"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        for targets, fan_in_fan_out in ((linear, False), (turned, True)):
            if targets:
                # rsLoRA: divided by the root of the rank, updates are of one size whatever the rank (Kalajdzievski 2023,
                # arXiv 2312.03732).
                config = LoraConfig(
                    r=plan.lora_rank,
                    lora_alpha=ALPHA,
                    target_modules=targets,
                    use_rslora=True,
                    fan_in_fan_out=fan_in_fan_out,
                )
                inject_adapter_in_model(config, network)


def merge_adapters(tail: Tail) -> None:
    """Add every adapter to the layer it stands beside, and take it away.

    Args:
        tail: changed in place; then it has the parameters, and their names, that it had before it was adapted.
    """
    merge_layers(tail.network)


def merge_layers(network: nn.Module) -> None:
    """Add every adapter of a network to the layer it stands beside, and take it away.

    Args:
        network: changed in place.
    """
    from peft.tuners.lora import Linear

    for name, module in list(network.named_modules()):
        if isinstance(module, Linear):
            module.merge()
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, module.base_layer)


def _weights_of(modules: Iterable[nn.Module]) -> int:
    """How many weights linear and convolutional layers have; what else there is are vectors and positions."""
    counted = (nn.Linear, nn.modules.conv._ConvNd)
    return sum(module.weight.numel() for module in modules if isinstance(module, counted))
