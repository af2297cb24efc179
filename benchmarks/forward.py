"""The bare network, which everything else is measured against: ONNX Runtime on random tensors, nothing decoded.

Usage: python benchmarks/forward.py PREFIX.onnx NUM_IMAGES      prints one JSON line: {"seconds", "images_per_second"}
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

BATCH_SIZE = 32
SIDE = 224


def default_session(model: Path) -> onnxruntime.InferenceSession:
    """A session as anybody opens it: every core works on one batch."""
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def time_default(session: onnxruntime.InferenceSession, num_images: int) -> float:
    """Seconds for so many random images in batches of 32."""
    batch = _random_batch(BATCH_SIZE)
    session.run(["features"], {"pixels": batch})
    started = time.perf_counter()
    for start in range(0, num_images, BATCH_SIZE):
        session.run(["features"], {"pixels": batch[: min(BATCH_SIZE, num_images - start)]})
    return time.perf_counter() - started


def time_threads(run, batch_size: int, num_threads: int, num_images: int) -> float:
    """Seconds for so many random images where each thread runs batches of its own, one thread a core."""
    batch = _random_batch(batch_size)
    sizes = [min(batch_size, num_images - start) for start in range(0, num_images, batch_size)]
    run(batch)
    with ThreadPoolExecutor(num_threads) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda size: run(batch[:size]).shape, sizes):
            pass
        return time.perf_counter() - started


def _random_batch(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((size, 3, SIDE, SIDE)).astype(np.float32)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    taken = time_default(default_session(Path(sys.argv[1])), int(sys.argv[2]))
    print(json.dumps({"seconds": taken, "images_per_second": int(sys.argv[2]) / taken}))
