"""The process: signals, errors, and what each ends with."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

from headstart.cli.output import OutputError, discard_output, guard_output, printable
from headstart.errors import HeadstartError
from headstart.memory import report_memory_errors

INTERRUPTED = 130


def main() -> None:
    """Run a command; exit with 0 when done, 2 when the input is at fault, 130 when interrupted, 1 for a bug."""
    _handle_signals()
    _open_streams()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except HeadstartError as error:
        code = _tell(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough (typer exits then); there is nobody to tell.
        discard_output()
        code = 0
    except Exception as error:
        if not _is_usage(error):
            raise
        code = error.exit_code  # type: ignore[attr-defined]
    if code == INTERRUPTED:  # typer, too, makes this of Ctrl-C
        _complain("\ninterrupted: no model was written; the cache keeps the features computed so far.\n")
    sys.exit(code)


def _handle_signals() -> None:
    """End in good order when interrupted, and at once when interrupted for the third time; SIGTERM is as Ctrl-C."""
    count = 0

    def stop(number: int, frame: Any) -> None:  # noqa: ANN401 - the signature is Python's
        nonlocal count
        count += 1
        if count == 1:
            raise KeyboardInterrupt
        if count > 2:
            os._exit(INTERRUPTED)
        os.write(2, b"\nending; interrupt once more to end at once.\n")

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, stop)


def _open_streams() -> None:
    """Have three streams that can be used, whatever the caller closed or the terminal can show."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would take its place, and be written over
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    if isinstance(sys.stdin, io.TextIOWrapper):  # a line that is no text names no file, and is told so
        sys.stdin.reconfigure(errors="surrogateescape")
    guard_output()


@report_memory_errors()
def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["predict"]:
        from headstart.cli.predict import predict_items, read_plainly

        plain = read_plainly(arguments)
        if plain is not None:
            return predict_items(*plain)
    from headstart.cli.commands import app

    return app(standalone_mode=False) or 0


def _is_usage(error: Exception) -> bool:
    """Show what typer says of wrong words on the command line."""
    show = getattr(error, "show", None)
    if show is None:
        return False
    show()
    return True


def _tell(error: HeadstartError) -> int:
    from headstart.cli.show import print_json

    kind = type(error).__name__
    _complain(f"{kind}: {printable(str(error))}\n")
    if isinstance(error, OutputError):
        return 2
    if "--json" in sys.argv:
        told = {"kind": kind, "what": error.what, "expected": error.expected, "mend": error.mend}
        print_json({"error": told})
    return 2


def _complain(text: str) -> None:
    """Write to stderr; where that cannot be, the status tells."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
