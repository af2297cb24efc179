"""Where a fit works before its model is whole: OUT.partial, which a resumed fit goes on from, or a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.api.adaptation import CHECKPOINTS
from headstart.api.opening import load
from headstart.errors import ArtifactError, SettingError
from headstart.model.model import Model
from headstart.model.place import cannot_write, check_replaceable, move_into_place

try:
    import fcntl
except ImportError:  # Windows; there nothing warns of two fits to one place
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel


@contextmanager
def workplace(out: str | Path | None, *, resume: bool) -> Iterator[Path]:
    """OUT.partial while the fit runs, or a temporary folder; gone if it fails, unless a resumed fit could go on from it.

    Args:
        out: where the model's folder goes; None for nowhere.
        resume: whether to go on from what an interrupted fit left there.

    Yields:
        The folder; nothing else is in it, unless the fit is resumed.

    Raises:
        ArtifactError: if it cannot be written, something else is at `out`, or another fit works there.
        SettingError: if there is nothing to resume.
    """
    folder = _open(out, resume=resume)
    held = _claim(folder)
    try:
        yield folder
    except OSError as error:
        _clear_failed(folder, out)
        raise cannot_write(folder, error) from error
    except BaseException:
        _clear_failed(folder, out)
        raise
    finally:
        _release(held)


def _open(out: str | Path | None, *, resume: bool) -> Path:
    if out is None:
        if resume:
            raise _nothing_to_resume("no folder is named where an interrupted fit could be")
        return Path(tempfile.mkdtemp(prefix="headstart-"))
    target = Path(out)
    check_replaceable(target)
    folder = partial(out)
    _release(_claim(folder))  # what lies there is nobody's any more
    if resume and not has_checkpoints(folder):
        seen = f"{folder} holds no checkpoint"
        raise _nothing_to_resume(f"{seen}, and {target} is a whole model" if target.exists() else seen)
    try:
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=resume)
    except OSError as error:
        raise cannot_write(target, error) from error
    return folder


def _claim(folder: Path) -> int | None:
    """Hold a folder against other fits until it is released, or this process ends; None where there is no such folder.

    Raises:
        ArtifactError: if another fit holds it.
    """
    if fcntl is None or not folder.is_dir():
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # working in it will say what is wrong
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ArtifactError(
            f"another fit is at work in {folder}.",
            expected="one fit at a time for each --out.",
            mend="wait for it, or name another --out.",
        ) from error
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def _release(held: int | None) -> None:
    if held is not None:
        os.close(held)


def partial(out: str | Path) -> Path:
    """The folder that a fit to `out` works in."""
    return Path(out).with_name(Path(out).name + ".partial")


def has_checkpoints(folder: Path) -> bool:
    """Whether a fit that was interrupted while it tuned left its state in a folder."""
    return any((folder / CHECKPOINTS).glob("*.pt"))


def _clear_failed(folder: Path, out: str | Path | None) -> None:
    if out is None or not has_checkpoints(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _nothing_to_resume(what: str) -> SettingError:
    return SettingError(
        f"there is nothing to resume: {what}.",
        expected="the --out of a fit that was interrupted while it tuned a network.",
        mend="leave --resume out to begin anew; features already computed are found in the cache.",
    )


def open_in_place(folder: Path, out: str | Path | None) -> Model | LanguageModel:
    """Open a model that is whole, and put it where it belongs.

    Args:
        folder: of the model.
        out: its place; None leaves it where it is until nobody uses it.
    """
    model = load(folder)
    if out is None:
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        return model
    move_into_place(folder, Path(out))
    return model.moved_to(Path(out))
