"""Running compiled networks on all cores: an ONNX Runtime session, and threads that keep their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import onnxruntime

# Beyond this, single products are large enough to keep every core busy.
MANY_ITEMS = 2_000

Given = TypeVar("Given")
Result = TypeVar("Result")


def open_session(model: Path | bytes, *, num_threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX Runtime session on the CPU.

    Args:
        model: a model's file, or its bytes.
        num_threads: how many threads one call may use.

    Returns:
        The session, which may be called from several threads at once.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def ordered_map(work: Callable[[Given], Result], inputs: Iterable[Given], *, num_workers: int) -> Iterator[Result]:
    """Apply a function on several threads, giving results in the order of the inputs.

    At most two inputs a worker are under way, so that memory stays bounded however many there are. When the caller stops
    early, or is interrupted, what has not begun is dropped and what has is waited for.

    Args:
        work: called with one input, on any of the threads.
        inputs: taken one by one, as there is room.
        num_workers: threads, at least 1.

    Yields:
        `work(input)` for each input; what it raises is raised here.
    """
    remaining = iter(inputs)
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="headstart")
    try:
        for given in islice(remaining, 2 * num_workers):
            pending.append(pool.submit(work, given))
        while pending:
            result = pending.popleft().result()
            for given in islice(remaining, 1):
                pending.append(pool.submit(work, given))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def blas_threads_for(num_items: int, num_cores: int) -> Iterator[int]:
    """Keep numpy's matrix products on the thread that asks for them where they are small.

    Small products gain little from a second thread; and where something else uses the machine, the threads of a product
    spin while they wait for each other: the heads of a thousand items then took six times as long. Independent pieces of work
    on threads of their own (`ordered_map`) use the cores better. To be entered by one thread at a time, since the limit is the
    process's.

    Args:
        num_items: rows of the matrices to come.
        num_cores: what may be used.

    Yields:
        How many pieces of work to do side by side: `num_cores` where products keep to one thread, else 1.
    """
    if num_items > MANY_ITEMS:
        yield 1
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield 1
        return
    with threadpool_limits(1, user_api="blas"):
        yield num_cores
