"""Compiling a backbone once and keeping the result, so that every later run starts without torch."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headstart import errors, runtime
from headstart.backbones.catalog import BackboneSource, open_source
from headstart.backbones.files import sha256_of
from headstart.backbones.word_files import clear_vectors
from headstart.errors import BackboneError, HeadstartError, MissingPackageError, SettingError
from headstart.features.bundled_graphs import BundledGraph, bundled_graph, fill_graph
from headstart.features.compiled_folder import cannot_write, checksum_of, keep_compiled, work_folder
from headstart.features.device import accelerator
from headstart.features.fusion import FusedPrefix
from headstart.features.prefix import OnnxPrefix, Prefix, PrefixSpec, TorchPrefix
from headstart.memory import memory_error, mentions_out_of_memory
from headstart.records import Modality

# Goes up when the same backbone comes to be compiled into another graph.
COMPILE_FORMAT = 4


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """A compiled prefix that is there, or on its way from another process."""

    source: BackboneSource
    image_size: int | None
    wait: Callable[[], Prefix]
    """Gives the prefix, waiting for the other process where there is one; raises what went wrong there."""
    cached: bool
    """Whether it was there already."""


def compile_prefix(source: BackboneSource, *, image_size: int | None = None, cut: str = "") -> Compilation:
    """Compile a backbone up to a block, or find it compiled.

    Args:
        source: as `backbones.locate` gives it.
        image_size: side in pixels of the square input, or None for the weights' own.
        cut: the block it ends with; '' for the last one.

    Returns:
        The compilation; where nothing is cached, it goes on in a process of its own while the caller does other work.

    Raises:
        MissingPackageError: if it must be compiled, and torch, onnx or the network's library is not installed.
        SettingError: if an image size is given, and the backbone takes no images.
    """
    if source.parts:
        return _compile_parts(source, image_size)
    if image_size is not None and source.modality != "image":
        raise SettingError(
            f"image_size is {image_size}, and backbone {source.name!r} takes {source.modality} items.",
            expected="an image size for images only.",
            mend="leave --image-size out.",
        )
    image_size = image_size or source.image_size
    folder = _folder(source, image_size, cut)
    if _whole_spec(folder):
        return Compilation(source=source, image_size=image_size, wait=lambda: _open(source, image_size, folder), cached=True)
    shutil.rmtree(folder, ignore_errors=True)  # what is left of a damaged one
    if graph := bundled_graph(source, cut):
        wait = partial(_fill, graph, source, image_size, folder)
        return Compilation(source=source, image_size=image_size, wait=wait, cached=False)
    _require_packages(source)
    return _start(source, image_size, cut, folder)


def _fill(graph: BundledGraph, source: BackboneSource, image_size: int | None, folder: Path) -> Prefix:
    """Compile a bundled network in this process, without torch."""
    started = time.perf_counter()
    work = work_folder(folder)
    try:
        spec = fill_graph(graph, source, work / "prefix.onnx", image_size=image_size)
        place = keep_compiled(spec, work, folder, seconds=time.perf_counter() - started, versions={"onnx": _version("onnx")})
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise cannot_write(folder.parent, error) from error
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    if place == work:
        atexit.register(shutil.rmtree, work, ignore_errors=True)  # it could not be kept
    return _open(source, image_size, place)


def _compile_parts(source: BackboneSource, image_size: int | None) -> Compilation:
    """Each of several backbones as if it were alone, one after the other: where one fails, no process is left behind."""
    cached = [_whole_spec(_folder(part, image_size or part.image_size)) is not None for part in source.parts]

    def wait() -> Prefix:
        return FusedPrefix([compile_prefix(part, image_size=image_size).wait() for part in source.parts])

    return Compilation(source=source, image_size=image_size, wait=wait, cached=all(cached))


def _folder(source: BackboneSource, image_size: int | None, cut: str = "") -> Path:
    return runtime.cache_root() / "compiled" / _key(source, image_size, cut)


def _whole_spec(folder: Path) -> PrefixSpec | None:
    """What a folder holds, if it is a compiled network as this version writes it and nothing of it was lost."""
    try:
        told = json.loads((folder / "prefix.json").read_text(encoding="utf-8"))
        if told["checksum"] != checksum_of(told):
            return None
        spec = PrefixSpec.from_json(told, lambda name: (folder / name).read_bytes())
        whole = bool(spec.why_torch) or _is_network(folder / "prefix.onnx", told["bytes"], told["sha256"])
    except (OSError, ValueError, KeyError, TypeError, HeadstartError):
        return None
    return spec if whole else None


def _is_network(path: Path, num_bytes: int, sha256: str) -> bool:
    """Whether a file has the size and the content that were written; the size first, which costs nothing."""
    return path.stat().st_size == num_bytes and sha256_of(path) == sha256


def _key(source: BackboneSource, image_size: int | None, cut: str) -> str:
    told = {**source.identity, "image_size": image_size, "format": COMPILE_FORMAT}
    graph = bundled_graph(source, cut)
    told |= {"graph": graph.sha256} if graph else {source.library: _version(source.library)}
    if cut:
        told["cut"] = cut
    if source.kind == "plugin":
        told["plugin"] = source.name
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _require_packages(source: BackboneSource) -> None:
    for package in ("torch", source.library, "onnx"):
        if not _version(package):
            raise MissingPackageError(package, purpose="compiling a backbone for the first time")


def _start(source: BackboneSource, image_size: int | None, cut: str, folder: Path) -> Compilation:
    work = work_folder(folder)
    changes = str(source.changes_path or "")
    places = {"folder": str(work), "target": str(folder)}
    named = {"name": source.name, "modality": source.modality, "changes": changes}
    asked = json.dumps(named | {"image_size": image_size, "cut": cut} | places)
    # A few small batches need no second thread, and where the machine is busy two would wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        runtime.python_command("headstart.features.export", asked),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )

    def wait() -> Prefix:
        try:
            _, told = process.communicate()
        except BaseException:
            process.kill()
            process.wait()  # else it could still put a file into the folder that goes away
            shutil.rmtree(work, ignore_errors=True)
            raise
        if process.returncode:
            error = _failure(source, work, told.decode(errors="replace"), process.returncode)
            shutil.rmtree(work, ignore_errors=True)
            raise error
        if not work.is_dir():
            return _open(source, image_size, folder)
        atexit.register(shutil.rmtree, work, ignore_errors=True)  # it could not be kept
        return _open(source, image_size, work)

    return Compilation(source=source, image_size=image_size, wait=wait, cached=False)


# By SIGKILL: so does Linux end a process where memory is short.
_KILLED = -9


def _failure(source: BackboneSource, work: Path, stderr: str, status: int) -> HeadstartError:
    told = work / "error.json"
    if told.is_file():
        error: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        kind = getattr(errors, error["kind"], BackboneError)
        if kind is MissingPackageError:
            kind = BackboneError
        return kind(error["what"], expected=error["expected"], mend=error["mend"])
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "it said nothing")
    if status == _KILLED or mentions_out_of_memory(last):
        return memory_error(last)
    return BackboneError(
        f"backbone {source.name!r} could not be compiled: {last[:300]}",
        expected="a backbone that opens and runs in a process of its own.",
        mend=f"see the whole error: python -c \"import headstart.backbones as b; b.open_backbone('{source.name}')\"",
    )


def _open(source: BackboneSource, image_size: int | None, folder: Path) -> Prefix:
    told = json.loads((folder / "prefix.json").read_text(encoding="utf-8"))
    spec = PrefixSpec.from_json(told, lambda name: (folder / name).read_bytes())
    # The same weights may have been compiled under another name: while they were tuned, or as the base of a saved model.
    spec = replace(spec, info=replace(spec.info, name=source.name, base=source.base))
    device = accelerator()
    if device == "cpu" and not spec.why_torch:
        _touch(folder)
        return OnnxPrefix(spec, folder / "prefix.onnx")
    from headstart.backbones.parts import pooled_network

    network = pooled_network(open_source(source, image_size=image_size), spec.cut)
    return TorchPrefix(spec, network, device=device, model_path=None if spec.why_torch else folder / "prefix.onnx")


def _touch(folder: Path) -> None:
    """Note the last use, for pruning."""
    try:
        os.utime(folder, (time.time(), time.time()))
    except OSError:
        return


def compiled() -> dict[str, Modality]:
    """The backbones that are compiled already: names, and what they take."""
    found = (_whole_spec(folder) for folder in (runtime.cache_root() / "compiled").glob("*"))
    whole = (spec for spec in found if spec and not spec.cut and not spec.info.tuned)
    return {spec.info.base or spec.info.name: spec.preprocess.modality for spec in whole}


def clear_compiled() -> int:
    """Remove all compiled networks, and what was read of files of word vectors.

    Returns:
        Bytes freed.
    """
    folder = runtime.cache_root() / "compiled"
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return freed + clear_vectors()
