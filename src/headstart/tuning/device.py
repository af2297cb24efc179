"""What a training runs on, by Accelerate: one device, or several processes that each take a share of every batch."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from headstart.features.device import accelerator


def make_accelerator() -> Accelerator:
    """Accelerate on the device that features are computed on, in bfloat16 where an NVIDIA device has it."""
    device = accelerator()
    half = device == "cuda" and torch.cuda.is_bf16_supported()
    # Blocks that have yet to begin training, and those behind the one the head looks at, get no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=device == "cpu", mixed_precision="bf16" if half else "no", kwargs_handlers=[unused])


def placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device, maps with their channels last in memory: convolutions are faster so."""
    moved = tensor.to(device)
    return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved


def total_of(number: float, over: Accelerator) -> float:
    """The sum of a number over all processes."""
    if over.num_processes == 1:
        return number
    return float(over.reduce(torch.tensor(number, device=over.device), "sum"))
