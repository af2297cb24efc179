"""Where a fit works before its model is whole: OUT.partial, which a resumed fit goes on from, or a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.api.adaptation import CHECKPOINTS, DECIDED
from headstart.api.opening import load
from headstart.artifact.store import HISTORY, LOGS, SPLITS
from headstart.backbones.files import CHANGES
from headstart.errors import ArtifactError, SettingError
from headstart.model.model import Model
from headstart.model.place import (
    STAGE,
    cannot_write,
    check_name,
    check_replaceable,
    check_work,
    clear_work,
    finish_work,
    move_into_place,
    recover,
    start_work,
)

try:
    import fcntl
except ImportError:  # Windows; there nothing warns of two fits to one place
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel

PARTIAL = ".partial"


# What a fit writes before it saves: training's history and logs, its checkpoints, and the tensors that it changed.
_FILES, _FOLDERS = (HISTORY, CHANGES, DECIDED, SPLITS), (LOGS, CHECKPOINTS, STAGE)


@contextmanager
def workplace(out: str | Path | None, *, resume: bool, overwrite: bool = False) -> Iterator[Path]:
    """OUT.partial while the fit runs, or a temporary folder; gone if it fails, unless a resumed fit could go on from it.

    Args:
        out: where the model's folder goes; None for nowhere.
        resume: whether to go on from what an interrupted fit left there.
        overwrite: whether a saved model at `out` may be replaced.

    Yields:
        The folder; nothing else is in it, unless the fit is resumed.

    Raises:
        ArtifactError: if it cannot be written, something else is at `out`, or another fit works there.
        SettingError: if there is nothing to resume.
    """
    folder, held = _open(out, resume=resume, overwrite=overwrite)
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


def _open(out: str | Path | None, *, resume: bool, overwrite: bool) -> tuple[Path, int | None]:
    """The folder, and the claim on it."""
    if out is None:
        if resume:
            raise _nothing_to_resume("no folder is named where an interrupted fit could be")
        return Path(tempfile.mkdtemp(prefix="headstart-")), None
    target = Path(out)
    check_name(target, PARTIAL)
    folder = partial(target)
    if resume and not has_checkpoints(folder):
        seen = f"{folder} holds no checkpoint"
        raise _nothing_to_resume(f"{seen}, and {target} is a whole model" if target.exists() else seen)
    recover(target)
    check_replaceable(target, overwrite=overwrite)
    try:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
        held = _claim(folder)
        try:
            check_work(folder)
            if not resume:
                clear_work(folder, whole=False)
                start_work(folder, _FILES, folders=_FOLDERS)
        except BaseException:
            _release(held)
            raise
    except OSError as error:
        raise cannot_write(target, error) from error
    return folder, held


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
    return Path(out).with_name(Path(out).name + PARTIAL)


def has_checkpoints(folder: Path) -> bool:
    """Whether a fit that was interrupted while it tuned left its state in a folder."""
    return any((folder / CHECKPOINTS).glob("*.pt"))


def _clear_failed(folder: Path, out: str | Path | None) -> None:
    if out is None:
        shutil.rmtree(folder, ignore_errors=True)  # made by this process, under a name that nobody had
    elif not has_checkpoints(folder):
        clear_work(folder)


def _nothing_to_resume(what: str) -> SettingError:
    return SettingError(
        f"there is nothing to resume: {what}.",
        expected="the --out of a fit that was interrupted while it tuned a network.",
        mend="leave --resume out to begin anew; features already computed are found in the cache.",
    )


def open_in_place(folder: Path, out: str | Path | None, *, overwrite: bool = False) -> Model | LanguageModel:
    """Open a model that is whole, and put it where it belongs.

    Args:
        folder: of the model.
        out: its place; None leaves it where it is until nobody uses it.
        overwrite: whether a saved model there is replaced.

    Returns:
        The model.

    Raises:
        ArtifactError: if something came to be at its place while it was made; the model then stays in `folder`.
    """
    model = load(folder)
    if out is None:
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        return model
    try:
        move_into_place(folder, Path(out), overwrite=overwrite)
    except ArtifactError as error:
        finish_work(folder)
        raise ArtifactError(
            f"{error.what} The new model is whole, in {folder}.",
            expected="nothing new at the place of the model while the fit runs.",
            mend=f"move what is at {out} elsewhere, then rename {folder} to {out}.",
        ) from error
    return model.moved_to(Path(out))
