"""Low-rank adapters in a network's linear layers (Hu et al. 2021, arXiv 2106.09685), by PEFT: the one file that knows it."""

from __future__ import annotations

import math

from torch import nn

from headstart.backbones.pooling import PooledTail
from headstart.errors import SettingError
from headstart.tuning.plan import TuningPlan


def adapt_linear_layers(tail: PooledTail, plan: TuningPlan, backbone: str) -> None:
    """Freeze a tail, and put a trainable adapter beside each of its linear layers.

    Args:
        tail: changed in place.
        plan: with the rank.
        backbone: its name, for the message.

    Raises:
        SettingError: if the network has no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = [name for name, module in tail.network.named_modules() if isinstance(module, nn.Linear)]
    if not targets:
        raise SettingError(
            f"backbone {backbone!r} has no linear layer that LoRA could adapt.",
            expected="a transformer (ViT, DINOv2, Swin, …): LoRA adapts linear layers.",
            mend="--strategy last:2 or full, or a transformer: --backbone timm:vit_small_patch16_224.",
        )
    tail.network.requires_grad_(False)
    # rsLoRA's scaling keeps the update's size independent of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    config = LoraConfig(r=plan.lora_rank, lora_alpha=math.isqrt(plan.lora_rank), target_modules=targets, use_rslora=True)
    inject_adapter_in_model(config, tail.network)


def merge_adapters(tail: PooledTail) -> None:
    """Add every adapter to the layer it stands beside, and take it away."""
    from peft.tuners.lora import Linear

    for name, module in list(tail.network.named_modules()):
        if isinstance(module, Linear):
            module.merge()
            owner, _, last = name.rpartition(".")
            setattr(tail.network.get_submodule(owner), last, module.base_layer)
