"""Threads that keep their results in order, and sessions that keep to their threads."""

import sys
import threading
import time
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from threadpoolctl import threadpool_info

from headstart.inference import MANY_ITEMS, blas_threads_for, open_session, ordered_map


@settings(max_examples=30, deadline=None)
@given(delays=st.lists(st.integers(0, 3), max_size=20), num_workers=st.integers(1, 5))
def test_results_come_in_the_order_of_the_inputs(delays, num_workers):
    def work(given):
        number, delay = given
        time.sleep(delay / 1000)
        return number * number

    found = list(ordered_map(work, enumerate(delays), num_workers=num_workers))
    assert found == [number * number for number in range(len(delays))]


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_inputs_are_taken_only_as_there_is_room(num_workers):
    taken = 0

    def endless():
        nonlocal taken
        for number in count():
            taken += 1
            yield number

    results = ordered_map(lambda number: -number, endless(), num_workers=num_workers)
    assert taken == 0, "nothing is done before the first result is asked for"
    for number in range(20):
        assert next(results) == -number
        assert taken <= number + 1 + 2 * num_workers
    results.close()


def test_as_many_threads_work_as_asked_for():
    meeting = threading.Barrier(3, timeout=20)
    assert list(ordered_map(lambda number: meeting.wait() >= 0, range(6), num_workers=3)) == [True] * 6


def test_what_work_raises_is_raised_in_its_place():
    done = []

    def work(number):
        if number == 5:
            raise ValueError(f"item {number}")
        done.append(number)
        return number

    results = ordered_map(work, count(), num_workers=2)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="item 5"):
        next(results)
    assert len(done) <= 5 + 2 * 2
    assert list(results) == []


def test_what_the_inputs_raise_is_raised():
    def broken():
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(ordered_map(lambda number: number, broken(), num_workers=2))


def test_stopping_early_begins_nothing_more_and_leaves_no_thread():
    begun, gate = [], threading.Event()
    before = threading.active_count()

    def work(number):
        begun.append(number)
        if number:
            gate.wait(20)
        return number

    results = ordered_map(work, count(), num_workers=2)
    assert next(results) == 0
    threading.Timer(0.05, gate.set).start()
    results.close()
    seen = list(begun)
    assert len(seen) <= 1 + 2 * 2
    assert [thread for thread in threading.enumerate() if thread.name.startswith("headstart")] == []
    assert begun == seen
    assert threading.active_count() <= before + 1  # the timer


def test_an_interrupt_of_the_caller_stops_the_threads():
    begun = []

    def caller():
        for number in ordered_map(lambda given: begun.append(given) or given, count(), num_workers=2):
            if number == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller()
    assert len(begun) <= 4 + 2 * 2
    assert [thread for thread in threading.enumerate() if thread.name.startswith("headstart")] == []


def doubling():
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_a_session_is_opened_from_a_file_or_its_bytes_and_serves_many_threads(tmp_path):
    (tmp_path / "doubling.onnx").write_bytes(doubling())
    for source in (doubling(), tmp_path / "doubling.onnx"):
        session = open_session(source, num_threads=1)
        assert session.get_providers() == ["CPUExecutionProvider"]
        given = [np.full(3, number, np.float32) for number in range(20)]
        found = ordered_map(lambda x, session=session: session.run(None, {"x": x})[0], given, num_workers=4)
        np.testing.assert_array_equal(list(found), 2 * np.stack(given))


def blas_threads():
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def test_small_products_keep_to_one_thread_for_as_long_as_asked():
    np.zeros((2, 2)) @ np.zeros((2, 2))
    before = blas_threads()
    with pytest.raises(RuntimeError, match="on the way"), blas_threads_for(MANY_ITEMS, 4) as side_by_side:
        assert side_by_side == 4
        assert blas_threads() == {1}
        raise RuntimeError("on the way")
    assert blas_threads() == before
    with blas_threads_for(MANY_ITEMS + 1, 4) as side_by_side:
        assert side_by_side == 1
        assert blas_threads() == before


def test_without_threadpoolctl_one_thing_is_done_at_a_time(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with blas_threads_for(10, 4) as side_by_side:
        assert side_by_side == 1
