"""Saved models on disk: written whole or not at all, verified on opening, nothing in them is ever run as code."""

from __future__ import annotations

import copyreg
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from headstart import runtime
from headstart.errors import ArtifactError, HeadstartError
from headstart.heads.terms import TermsHead
from headstart.inference import open_session
from headstart.model.manifest import MANIFEST, Manifest
from headstart.model.model import Model
from headstart.model.place import announce
from headstart.model.terms import TERMS_INPUT, VOCABULARY, WEIGHTS, unpack_terms
from headstart.operators import refused_in
from headstart.preprocess.fusion import array_names, gather_arrays, named_arrays
from headstart.preprocess.recipe import Arrays, Preprocess, preprocess_from_json

NETWORK = "model.onnx"
REPORT = "report.json"
SELF_TEST = "selftest.safetensors"
LEARNED = "learned.safetensors"
HISTORY, LOGS, SPLITS = "history.csv", "logs", "splits.csv"
NUM_GOLDEN = 3
# Another processor may round a product differently; a wrong network is off by far more (a change of the channels' order:
# about 0.1 in probability).
ANSWER_TOLERANCE = 2e-3


_INPUT_TYPES = {f"tensor({name})" for name in ("float", "int64", "int32", "uint8")}
_OUTPUT_TYPES = {"tensor(float)", "tensor(double)"}


def write(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a saved model into a folder that nobody reads yet.

    Args:
        folder: exists.
        manifest: its `files` are filled in here, with what training logged there.
        files: content by name.
    """
    announce(folder, files)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} | sums_of_logs(folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    complete = Manifest(**{**manifest.__dict__, "files": sums})
    (folder / MANIFEST).write_bytes(runtime.as_utf8(complete.as_text()))


def sums_of_logs(folder: Path) -> dict[str, str]:
    """SHA-256 of what training logged into a model's folder, by name.

    Args:
        folder: of the model.
    """
    logged = [folder / HISTORY, *sorted((folder / LOGS).rglob("*"))]
    files = [path for path in logged if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace one file of a saved model, and its checksum.

    Args:
        folder: of a saved model.
        name: of the file.
        content: the new content.

    Raises:
        ArtifactError: if the folder is no saved model, or cannot be written.
    """
    manifest = read_manifest(folder)
    complete = Manifest(**{**manifest.__dict__, "files": {**manifest.files, name: hashlib.sha256(content).hexdigest()}})
    runtime.atomic_write_bytes(folder / name, content, error=ArtifactError)
    runtime.atomic_write_text(folder / MANIFEST, complete.as_text(), error=ArtifactError)


def load(path: str | Path) -> Model:
    """Open a saved model: compare checksums, replay the self-test.

    Args:
        path: the folder `fit` made.

    Returns:
        The model, ready to predict.

    Raises:
        ArtifactError: if it is no saved model, writes text, was changed, is of a newer format, or answers otherwise here.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    if manifest.task == "generate":
        raise ArtifactError(
            f"{folder} writes text, and has no labels to predict.",
            expected="a model that was fitted on labelled items.",
            mend=f'headstart generate {folder} "PROMPT"; in Python headstart.load({str(folder)!r}).generate("PROMPT").',
        )
    sealed = {name: sha256 for name, sha256 in manifest.files.items() if manifest.is_sealed(name)}
    contents = {name: _verified(folder, name, sha256) for name, sha256 in sealed.items()}
    unlisted = sorted({NETWORK, SELF_TEST, REPORT} - contents.keys())
    if unlisted:
        raise _changed(folder, MANIFEST, why=f"it does not list {', '.join(unlisted)}")
    preprocess = preprocess_from_json(manifest.preprocess, lambda name: _listed(folder, name, contents))
    terms = _read_terms(folder, contents, manifest.num_outputs)
    inputs = [*array_names(preprocess.input_name, preprocess), *([TERMS_INPUT] if terms is not None else [])]
    session = _open_network(folder, contents[NETWORK], inputs, manifest.num_outputs)
    report = _read_report(folder, contents[REPORT])
    model = Model(folder=folder, manifest=manifest, preprocess=preprocess, session=session, report=report, terms=terms)
    replay(model, contents[SELF_TEST])
    return model


def _restore(folder: str, checksum: str) -> Model:
    """Open a model that another process sent, by its folder.

    Raises:
        ArtifactError: if the folder is gone, or another model is there now.
    """
    model = load(folder)
    if _identity(model) != checksum:
        raise _changed(Path(folder), MANIFEST, why="another model was saved there since it was sent")
    return model


def _identity(model: Model) -> str:
    return hashlib.sha256(model.manifest.as_text().encode()).hexdigest()


# A session of ONNX Runtime cannot be sent to another process; what it was opened from can be opened there.
copyreg.pickle(Model, lambda model: (_restore, (str(model.folder.absolute()), _identity(model))))


def _listed(folder: Path, name: str, contents: Mapping[str, bytes]) -> bytes:
    if name not in contents:
        raise _changed(folder, MANIFEST, why=f"it does not list {name}")
    return contents[name]


def _open_network(folder: Path, content: bytes, inputs: list[str], num_outputs: int) -> onnxruntime.InferenceSession:
    if why := refused_in(content):
        raise _changed(folder, NETWORK, why=f"it has {why}")
    try:
        session = open_session(content, num_threads=1)
    except Exception as error:  # each fault has a class of its own in ONNX Runtime, without a common base
        raise _changed(folder, NETWORK, why="ONNX Runtime cannot open it") from error
    if [given.name for given in session.get_inputs()] != inputs:
        raise _changed(folder, NETWORK, why=f"it does not take {' and '.join(inputs)}")
    if [answer.shape[-1:] for answer in session.get_outputs()] != [[num_outputs]]:
        raise _changed(folder, NETWORK, why=f"it does not give {num_outputs} numbers an item, as headstart.json has it")
    types = [given.type for given in session.get_inputs()]
    if not set(types) <= _INPUT_TYPES or [answer.type for answer in session.get_outputs()][0] not in _OUTPUT_TYPES:
        raise _changed(folder, NETWORK, why="its inputs or its output are of types that no model of ours has")
    return session


def _read_terms(folder: Path, contents: Mapping[str, bytes], num_outputs: int) -> TermsHead | None:
    """What the terms of texts add, where the model has such files."""
    if not {VOCABULARY, WEIGHTS} & contents.keys():
        return None
    files = {name: _listed(folder, name, contents) for name in (VOCABULARY, WEIGHTS)}
    try:
        return unpack_terms(files, num_outputs)
    except ValueError as problem:
        raise _changed(folder, VOCABULARY, why=str(problem)) from problem


def _read_report(folder: Path, content: bytes) -> dict[str, Any]:
    try:
        report = json.loads(content)
    except ValueError as error:
        raise _changed(folder, REPORT, why="it is no JSON") from error
    if not isinstance(report, dict):
        raise _changed(folder, REPORT, why="it is no JSON object")
    return report


def pack_digests(hashes: Iterable[str]) -> bytes:
    """The contents of learned.safetensors: SHA-256 of what the model learned from, sorted.

    Args:
        hashes: hexadecimal.

    Returns:
        Bytes of a file with `sha256`, (N, 32) uint8.
    """
    joined = b"".join(bytes.fromhex(value) for value in sorted(set(hashes)))
    return save_tensors({"sha256": np.frombuffer(joined, np.uint8).reshape(-1, 32)})


def learned_digests(folder: Path) -> frozenset[bytes]:
    """SHA-256 of every item that a saved model learned from; none where the model does not say.

    Args:
        folder: of a saved model.
    """
    path = folder / LEARNED
    if not path.is_file():
        return frozenset()
    return frozenset(row.tobytes() for row in load_tensors(path.read_bytes())["sha256"])


def read_manifest(folder: Path) -> Manifest:
    """Read headstart.json of a folder.

    Args:
        folder: of a saved model.

    Returns:
        The manifest.

    Raises:
        ArtifactError: if there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        seen = "there is nothing there" if not folder.exists() else "it holds no headstart.json"
        raise ArtifactError(
            f"{folder} is no saved model: {seen}.",
            expected="the folder that `headstart fit --out` made.",
            mend="check the path.",
        )
    try:
        return Manifest.from_text(path.read_text(encoding="utf-8"), where=str(folder))
    except UnicodeDecodeError as error:
        raise _changed(folder, MANIFEST, why="it is no text") from error


def _verified(folder: Path, name: str, sha256: str) -> bytes:
    # A name with a path in it could reach outside of the folder.
    if Path(name).name != name:
        raise _changed(folder, MANIFEST, why=f"it lists {name!r}, which is no name of a file in it")
    try:
        if (folder / name).exists() and not (folder / name).is_file():
            raise OSError("it is no regular file")
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        forbidden = isinstance(error, PermissionError)
        raise ArtifactError(
            f"{name} in {folder} may not be read ({error})." if forbidden else f"{folder} lacks {name} ({error}).",
            expected="every file that headstart.json lists.",
            mend="let this user read it (chmod)." if forbidden else "copy the whole folder again from where it was made.",
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _changed(folder, name)
    return content


def _changed(folder: Path, name: str, *, why: str = "its sha256 differs") -> ArtifactError:
    return ArtifactError(
        f"{name} in {folder} is not what was saved: {why}.",
        expected="every file as `headstart fit` wrote it.",
        mend="copy the whole folder again from where it was made; after editing on purpose, fit again.",
    )


def make_self_test(preprocess: Preprocess, items: Sequence[Any], run: Any) -> bytes:  # noqa: ANN401 - a callable
    """Golden items with what they must become.

    Args:
        preprocess: the model's.
        items: at most three.
        run: a collated batch, and the items themselves, to (B, K) float32: the saved network.

    Returns:
        The bytes of selftest.safetensors: for each item a copy of it, the item prepared, and its answer.
    """
    tensors: dict[str, np.ndarray] = {}
    for index, item in enumerate(items[:NUM_GOLDEN]):
        kept = preprocess.keep(item)
        prepared = preprocess.prepare(kept)
        tensors[f"item.{index}"] = np.frombuffer(kept, np.uint8)
        tensors |= named_arrays(f"prepared.{index}", preprocess, prepared)
        tensors[f"answer.{index}"] = run(preprocess.collate([prepared]), [kept])[0]
    return save_tensors(tensors)


def golden_items(content: bytes) -> list[bytes]:
    """The items that a self-test holds, as `Preprocess.prepare` takes them.

    Args:
        content: of selftest.safetensors.
    """
    tensors = load_tensors(content)
    return [tensors[f"item.{index}"].tobytes() for index in range(_count_items(tensors))]


def _count_items(tensors: Mapping[str, np.ndarray]) -> int:
    return sum(name.startswith("item.") for name in tensors)


def replay(model: Model, content: bytes) -> None:
    """Put the golden items through preprocess and network again.

    Args:
        model: opened.
        content: of selftest.safetensors.

    Raises:
        ArtifactError: if input or answers differ from those saved.
    """
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise _changed(model.folder, SELF_TEST, why="it holds no tensors") from error
    count, recipe = _count_items(tensors), model.preprocess
    names = {name for index in range(count) for name in array_names(f"prepared.{index}", recipe)}
    if set(tensors) != names | {f"{part}.{index}" for part in ("item", "answer") for index in range(count)}:
        raise _changed(model.folder, SELF_TEST, why="it holds other tensors")
    saved = [gather_arrays(f"prepared.{index}", recipe, tensors) for index in range(count)]
    for index in range(count):
        prepared = recipe.prepare(tensors[f"item.{index}"].tobytes(), name=f"golden item {index}")
        off = recipe.compare(prepared, saved[index])
        if off:
            raise _unfaithful(model.folder, f"golden item {index} becomes {off}")
    if not count:
        return
    items = [tensors[f"item.{index}"].tobytes() for index in range(count)]
    answers = _answers_to(model, recipe.collate(saved), items)
    for index, answer in enumerate(answers):
        wanted = tensors[f"answer.{index}"]
        _check_answer(model, answer, wanted)
        worst = difference(answer, wanted, tensors["answer.0"])
        if not worst <= ANSWER_TOLERANCE:
            raise _unfaithful(model.folder, f"golden item {index} gets another answer here (off by {worst:.1e})")


def _answers_to(model: Model, batch: Arrays, items: Sequence[bytes]) -> np.ndarray:
    try:
        answers = model.run(batch, items)
    except HeadstartError:
        raise
    except Exception as error:  # each fault has a class of its own in ONNX Runtime, without a common base
        why = f"it cannot be run on what its preprocess gives ({str(error)[:200]})"
        raise _changed(model.folder, NETWORK, why=why) from error
    if answers.shape != (len(items), model.manifest.num_outputs):
        raise _changed(model.folder, NETWORK, why=f"it gives answers of shape {answers.shape} for {len(items)} items")
    return answers


def _check_answer(model: Model, answer: np.ndarray, wanted: np.ndarray) -> None:
    if wanted.shape != answer.shape or wanted.dtype.kind != "f":
        raise _changed(model.folder, SELF_TEST, why=f"it holds answers of shape {wanted.shape} and type {wanted.dtype}")


def difference(found: np.ndarray, wanted: np.ndarray, base: np.ndarray) -> float:
    """The largest difference of answers, in units of the largest answer where that is above 1.

    Args:
        found: (…, K) answers.
        wanted: (…, K) what they should be.
        base: (K,) one of these; values in float64 have an offset, and are measured from it.
    """
    size = np.abs(wanted - base if wanted.dtype == np.float64 else wanted)
    return float(np.abs(found - wanted).max()) / max(1.0, float(size.max()))


def _unfaithful(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{folder}: {what}.",
        expected="the same input and answers as when the model was saved.",
        mend="use the versions of the packages that headstart.json lists under packages.",
    )
