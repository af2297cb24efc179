"""What features are computed on."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from headstart.errors import SettingError

DEVICES = ("cpu", "cuda", "mps")


def accelerator() -> str:
    """Say what features are computed on; torch is imported only where a device is there.

    Returns:
        'cuda' where there is an NVIDIA device and a torch that can use it, else 'cpu'; `HEADSTART_DEVICE` overrides.

    Raises:
        SettingError: if `HEADSTART_DEVICE` is none of cpu, cuda, mps.
    """
    named = os.environ.get("HEADSTART_DEVICE", "").strip().lower()
    if named and named not in DEVICES:
        raise SettingError(
            f"HEADSTART_DEVICE is {named!r}.",
            expected=f"one of {', '.join(DEVICES)}.",
            mend="unset HEADSTART_DEVICE to let headstart look.",
        )
    if named:
        return named
    if not any(Path("/dev").glob("nvidia[0-9]*")) or importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
