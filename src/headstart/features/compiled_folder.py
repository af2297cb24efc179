"""The folder of one compiled network in the cache: `prefix.onnx`, `prefix.json`, and what its preprocess needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.backbones.files import sha256_of
from headstart.errors import CacheError
from headstart.features.prefix import PrefixSpec


def work_folder(folder: Path) -> Path:
    """Make an empty folder to compile in: beside the final place, so that moving it there is one step, if that can be written.

    Args:
        folder: the final place.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="headstart-"))


def keep_compiled(spec: PrefixSpec, work: Path, folder: Path, *, seconds: float, versions: Mapping[str, str]) -> Path:
    """Write what a compiled network is beside it, and move both to their final place.

    Args:
        spec: what was compiled.
        work: as `work_folder` made it; holds `prefix.onnx`, unless torch runs the network.
        folder: the final place.
        seconds: that compiling took.
        versions: of the packages that compiled it.

    Returns:
        Where it is: `folder`, or `work` where that is not beside it.
    """
    written = spec.as_json() | {"seconds": round(seconds, 2), "versions": dict(versions)}
    written["bytes"] = 0 if spec.why_torch else (work / "prefix.onnx").stat().st_size
    written["sha256"] = "" if spec.why_torch else sha256_of(work / "prefix.onnx")
    written["checksum"] = checksum_of(written)
    for name, content in spec.preprocess.assets.items():
        (work / name).write_bytes(content)
    (work / "prefix.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    if work.parent != folder.parent:
        return work
    try:
        work.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(work)  # another process was first, and its result is as good
    return folder


def checksum_of(written: Mapping[str, Any]) -> str:
    """SHA-256 of what prefix.json says, itself left out, however the text is laid out."""
    values = {name: value for name, value in written.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def cannot_write(cache: Path, error: OSError) -> CacheError:
    """The error of a cache that a compiled network cannot be written to."""
    return CacheError(
        f"the compiled network cannot be written to {cache}: {error.strerror or error}.",
        expected="a folder that can be written, with about 100 MB free.",
        mend="free some space, or name another folder for the cache: HEADSTART_CACHE=FOLDER.",
    )
