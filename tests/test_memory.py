"""Memory that runs out: recognised whichever library says so, and reported as a limit of the machine."""

import errno
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnxruntime.capi.onnxruntime_pybind11_state as ort_errors
import pytest

import headstart
from commands import run_here
from headstart import memory
from headstart.api import fit as fitting
from headstart.cli import predict as predicting
from headstart.errors import DataError, MemoryLimitError
from headstart.memory import is_out_of_memory, report_memory_errors, require_addresses

OUT_OF_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("libtorch.so: failed to map segment from shared object"),
    ImportError("libtorch_python.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
    ),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 MiB."),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    ort_errors.RuntimeException("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
]
OTHERS = [
    ValueError("out of memory"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
    ImportError("No module named 'torch'"),
    OSError(errno.ENOSPC, "No space left on device"),
    DataError("out of memory", expected="y", mend="z"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=repr)
def test_errors_of_memory_are_recognised_and_reported(error):
    assert is_out_of_memory(error)
    with pytest.raises(MemoryLimitError) as caught, report_memory_errors():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_stay_what_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, report_memory_errors():
        raise error
    assert caught.value is error


def test_arrays_that_do_not_fit_are_recognised():
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 55)
    assert is_out_of_memory(caught.value)


def test_loading_torch_under_a_limit_of_addresses_ends_in_a_headstart_error():
    code = (
        "import resource\n"
        "from headstart.errors import MemoryLimitError\n"
        "from headstart.memory import report_memory_errors\n"
        "resource.setrlimit(resource.RLIMIT_AS, (700_000_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    with report_memory_errors():\n"
        "        import torch\n"
        "except MemoryLimitError as error:\n"
        "    print(error.mend)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "0.7 GB" in done.stdout


@pytest.mark.parametrize(("left", "enough"), [(1 << 30, True), (1 << 20, False), (-1, False)])
def test_what_needs_more_addresses_than_are_left_is_refused(left, enough, monkeypatch):
    monkeypatch.setattr(memory, "_address_limit", lambda: (1 << 32) + left)
    monkeypatch.setattr(memory, "_used_addresses", lambda: 1 << 32)
    with nullcontext() if enough else pytest.raises(MemoryLimitError, match=r"at least 0\.50 GB are needed"):
        require_addresses(500_000_000)


def test_without_a_limit_any_number_of_addresses_may_be_asked_for(monkeypatch):
    monkeypatch.setattr(memory, "_address_limit", lambda: 0)
    require_addresses(1 << 60)


def test_fit_reports_memory_that_ran_out_and_leaves_nothing(tmp_path, monkeypatch):
    def starve(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(fitting, "read_with_findings", starve)
    with pytest.raises(MemoryLimitError):
        headstart.fit([("a", "x"), ("b", "y")], out=tmp_path / "out.hs")
    assert list(tmp_path.iterdir()) == []


def test_every_command_reports_memory_that_ran_out(monkeypatch):
    def starve(arguments):
        raise MemoryError

    monkeypatch.setattr(predicting, "read_plainly", starve)
    done = run_here("predict", "model.hs", "item.png")
    assert done.returncode == 2
    assert "MemoryLimitError" in done.stderr
