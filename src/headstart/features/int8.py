"""The same compiled prefix with its products in 8-bit whole numbers, and how much faster that is on this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from headstart import runtime
from headstart.backbones.files import sha256_of
from headstart.errors import CacheError
from headstart.features.clips import ClipPrefix
from headstart.features.prefix import OnnxPrefix, Prefix

NETWORK, TOLD, CHECKSUM = "int8.onnx", "int8.json", "int8.sha256"
ROUNDS = 5


def quantized(prefix: Prefix) -> tuple[OnnxPrefix | None, str]:
    """The prefix in 8-bit whole numbers, made once and kept beside it.

    Args:
        prefix: a compiled prefix, in float32.

    Returns:
        Another prefix with the same layout, None where there is none; and then why not.
    """
    path = prefix.model_path
    if isinstance(prefix, ClipPrefix):
        return None, "frames of clips are computed in float32"
    if not isinstance(prefix, OnnxPrefix) or path is None:
        return None, "the network runs on torch"
    made = path.with_name(NETWORK)
    why = ""
    if (found := _open(prefix, made)) is None:
        why = _make(path, made)
        found = None if why else OnnxPrefix(prefix.spec, made, precision="int8")
    return found, why


def _open(prefix: OnnxPrefix, made: Path) -> OnnxPrefix | None:
    """The prefix that was made earlier; None where none was, or it was damaged since."""
    try:
        whole = made.exists() and made.with_name(CHECKSUM).read_text(encoding="ascii") == sha256_of(made)
        return OnnxPrefix(prefix.spec, made, precision="int8") if whole else None
    except Exception:  # noqa: BLE001 - each fault has a class of its own in ONNX Runtime, without a common base
        return None


def _make(path: Path, made: Path) -> str:
    if importlib.util.find_spec("onnx") is None:
        return "onnx is not installed"
    import onnx

    from headstart.features.int8_graph import quantize_products

    model, count = quantize_products(onnx.load(path))
    if not count:
        return "the network has no products with constant matrices"
    try:
        content = model.SerializeToString()
        runtime.atomic_write_bytes(made, content)
        runtime.atomic_write_text(made.with_name(CHECKSUM), hashlib.sha256(content).hexdigest())
    except CacheError as error:
        return f"it could not be kept: {error.what}"
    return ""


def times_faster(prefix: OnnxPrefix, other: OnnxPrefix, batches: Sequence[np.ndarray]) -> float:
    """How much less time the other prefix takes for some batches, measured once on a machine and remembered.

    Args:
        prefix: in float32.
        other: in 8-bit whole numbers; its file's folder holds what was measured.
        batches: as the preprocess collates them.

    Returns:
        Seconds of the first over seconds of the other: medians of rounds in turn, on one core.
    """
    assert other.model_path is not None
    kept = other.model_path.with_name(TOLD)
    machine = {"processor": runtime.hardware()["cpu"], "onnxruntime": onnxruntime.__version__}
    try:
        told = json.loads(kept.read_text(encoding="utf-8"))
        if told["machine"] == machine:
            return float(told["times_faster"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    measured = _measure(prefix, other, batches)
    try:
        runtime.atomic_write_text(kept, json.dumps({"machine": machine, "times_faster": measured}))
    except CacheError:
        pass  # it is measured again next time
    return measured


def _measure(prefix: OnnxPrefix, other: OnnxPrefix, batches: Sequence[np.ndarray]) -> float:
    taken: tuple[list[float], list[float]] = [], []
    for number in range(1 + ROUNDS):
        for one, seconds in zip((prefix, other), taken, strict=True):
            started = time.perf_counter()
            for batch in batches:
                one(batch)
            if number:  # the first calls take longer
                seconds.append(time.perf_counter() - started)
    return statistics.median(taken[0]) / statistics.median(taken[1])
