"""The command line as tests run it: in a process of its own, or in theirs, which is quicker."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from exact import exactly
from headstart.cli import main

PROGRAM = str(Path(sys.executable).with_name("headstart"))


def run(*words, stdin="", cwd=None, before=None, **environment):
    """Run a command in a process of its own; `before` is called in it first."""
    return subprocess.run(
        [PROGRAM, *map(str, exactly(words))], input=stdin, capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
        env=os.environ | environment, preexec_fn=before,
    )  # fmt: skip


def run_here(*words, stdin="", cwd=None, **environment):
    """The same without a process of its own: what it prints and ends with."""
    out, complaint, handlers = io.StringIO(), io.StringIO(), (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    with (
        mock.patch.object(sys, "argv", ["headstart", *map(str, exactly(words))]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.dict(os.environ, environment),
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(complaint),
        pytest.raises(SystemExit) as end,
    ):
        main()
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
        signal.signal(number, handler)
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), complaint.getvalue())
