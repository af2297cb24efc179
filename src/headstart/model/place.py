"""Where a saved model goes: nothing of the user's is overwritten, and a model is there whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from headstart.errors import ArtifactError


def check_replaceable(target: Path) -> None:
    """Refuse to write over anything that is not a saved model.

    Raises:
        ArtifactError: if something else is at the path, or the path names no folder of its own.
    """
    if target.name in {"", ".."}:
        raise ArtifactError(
            f"{str(target)!r} is no name for a saved model.",
            expected="the path of a folder with a name of its own, as in flowers.hs.",
            mend="choose another path for --out.",
        )
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and ((target / "headstart.json").is_file() or not any(target.iterdir())):
        return
    raise ArtifactError(
        f"{target} exists and is not a saved model.",
        expected="a path where nothing is, or a model saved earlier, which is then replaced.",
        mend="choose another path for --out, or remove what is there.",
    )


def move_into_place(work: Path, target: Path) -> None:
    """Make a finished folder appear under its name in one step; an older model there goes away only then."""
    old = target.with_name(f".{target.name}.replaced")
    if target.is_symlink():
        target.unlink()  # the model it leads to stays where it is
    elif target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    work.chmod(0o755)
    try:
        work.rename(target)
    except BaseException:
        if old.is_dir() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def cannot_write(target: Path, error: OSError) -> ArtifactError:
    """The error for a folder that cannot be written."""
    return ArtifactError(
        f"{target} cannot be written: {error.strerror or error}.",
        expected="a folder that can be written, with about 25 MB free.",
        mend="free some space, or choose another path for --out.",
    )
