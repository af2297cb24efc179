"""The process: signals, errors, and what each ends with."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

from headstart.errors import HeadstartError

INTERRUPTED = 130


def main() -> None:
    """Run a command; exit with 0 when done, 2 when the input is at fault, 130 when interrupted, 1 for a bug."""
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdin, io.TextIOWrapper):  # a line that is no text names no file, and is told so
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name or label that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except HeadstartError as error:
        code = _tell(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough (typer exits then); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if not _is_usage(error):
            raise
        code = error.exit_code  # type: ignore[attr-defined]
    if code == INTERRUPTED:  # typer, too, makes this of Ctrl-C
        sys.stderr.write("\ninterrupted: no model was written; the cache keeps the features computed so far.\n")
    sys.exit(code)


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


def _stop(number: int, frame: Any) -> None:  # noqa: ANN401 - the signature is Python's
    """End as for Ctrl-C, so that what is half-written goes away."""
    raise KeyboardInterrupt


def _tell(error: HeadstartError) -> int:
    from headstart.cli.show import print_json

    kind = type(error).__name__
    sys.stderr.write(f"{kind}: {error}\n")
    if "--json" in sys.argv:
        told = {"kind": kind, "what": error.what, "expected": error.expected, "mend": error.mend}
        print_json({"error": told})
    return 2
