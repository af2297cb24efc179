"""Making a saved model of a fit: one network, its evidence, and the proof that they belong together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from headstart.api.content import Story, tell, with_seconds
from headstart.artifact.store import (
    ANSWER_TOLERANCE,
    LEARNED,
    NETWORK,
    NUM_GOLDEN,
    SELF_TEST,
    SPLITS,
    make_self_test,
    pack_digests,
    write,
)
from headstart.backbones.files import CHANGES
from headstart.data.split import write_splits_csv
from headstart.errors import BackboneError, HeadstartError, MissingPackageError
from headstart.features.extract import FLIPPED
from headstart.features.fusion import parts_of
from headstart.features.prefix import Prefix
from headstart.heads.mlp import dense_layers
from headstart.heads.terms import TermsHead
from headstart.inference import open_session
from headstart.model.manifest import FORMAT, Manifest
from headstart.model.model import run_network
from headstart.model.terms import pack_terms
from headstart.preprocess.fusion import array_names
from headstart.records import Sample
from headstart.report.card import model_card
from headstart.report.page import import_drawing, render_report
from headstart.runtime import as_utf8

# Test items that the saved network must answer as the evaluated head did.
NUM_COMPARED = 4


def write_artifact(folder: Path, story: Story, seconds: Callable[[], dict[str, float]]) -> None:
    """Write the model's folder.

    Args:
        folder: exists, and nobody reads it yet.
        story: what the fit decided.
        seconds: of the steps so far; asked again after the page is made, so that report.json knows how long that took.

    Raises:
        BackboneError: if the network could not be compiled, and so cannot predict without torch.
    """
    network, preprocess = _network(story), story.bottom.table.preprocess
    session = open_session(network, num_threads=1)

    terms = _terms(story)

    def run(batch: np.ndarray, items: Sequence[Any]) -> np.ndarray:
        return run_network(session, preprocess, terms, batch, items)

    _compare(story, run)
    content = tell(story, seconds())
    page = render_report(content)
    content = with_seconds(content, seconds())
    write_splits_csv(folder / SPLITS, story.dataset, story.splits)
    write(
        folder,
        _manifest(story, content),
        {
            NETWORK: network,
            SELF_TEST: make_self_test(preprocess, [sample.item for sample in _golden(story)], run),
            LEARNED: pack_digests(story.bottom.table.hashes[id_] for id_ in story.splits.train),
            "head.safetensors": _head_tensors(story),
            "report.json": as_utf8(json.dumps(content, ensure_ascii=False, indent=1)),
            "report.html": as_utf8(page),
            "README.md": as_utf8(model_card(content)),
            SPLITS: (folder / SPLITS).read_bytes(),
            **_changes(story, folder),
            **preprocess.assets,
            **({} if terms is None else pack_terms(terms)),
        },
    )


def import_ahead() -> None:
    """Load what saving needs, so that another thread can do it while the features are computed."""
    import_drawing()
    with suppress(ImportError):  # told where it is needed
        import_module("headstart.artifact.graph")


def require_compiled(prefix: Prefix) -> tuple[Path, ...]:
    """The compiled network's file, or those of several, which a saved model is made of.

    Args:
        prefix: that made the features.

    Raises:
        BackboneError: if a network could not be compiled, and so cannot predict without torch.
    """
    paths = [part.model_path for part in parts_of(prefix) if part.model_path is not None]
    if len(paths) < len(parts_of(prefix)):
        spec = prefix.spec
        raise BackboneError(
            f"backbone {spec.info.name!r} could not be compiled, so no model of it can predict without torch: {spec.why_torch}",
            expected="a backbone that ONNX can express.",
            mend="choose another backbone; `headstart embed` and headstart.features.extract work with this one.",
        )
    return tuple(paths)


def _network(story: Story) -> bytes:
    try:
        from headstart.artifact.graph import Answer, assemble
    except ImportError as error:
        raise MissingPackageError("onnx", purpose="saving a model") from error
    kept = story.adaptation
    paths, floor, spec = require_compiled(kept.prefix), kept.answering, kept.prefix.spec
    answer = Answer(
        width=spec.width,
        inputs=array_names(spec.preprocess.input_name, spec.preprocess),
        columns=spec.runs(floor.block),
        flips=FLIPPED in kept.table.views,
        clips="frames" in spec.preprocess.free_axes.values(),
        head=floor.head,
        temperatures=floor.calibration.temperatures,
        task=story.dataset.task,
        offset=story.dataset.offset,
        with_terms=floor.terms is not None,
    )
    return assemble(paths, answer)


def _terms(story: Story) -> TermsHead | None:
    """The head on terms, the temperatures in its weights as in the network's."""
    floor = story.adaptation.answering
    return None if floor.terms is None else floor.terms.scaled(1 / floor.calibration.temperatures)


def _compare(story: Story, run: Callable[[np.ndarray, Sequence[Any]], np.ndarray]) -> None:
    """The saved network must answer as the head did on the features that were evaluated."""
    ids = [id_ for id_ in (*story.splits.test, *story.splits.train)[:NUM_COMPARED]]
    kept = story.adaptation
    wanted = kept.answering.answers_to(kept.table, ids, story.dataset.task)
    preprocess = kept.table.preprocess
    for id_, row in zip(ids, wanted, strict=True):
        try:
            item = story.dataset.by_id[id_].item
            answer = run(preprocess.collate([preprocess.prepare(item, name=id_)]), [item])[0]
        except HeadstartError:
            continue  # the item vanished while the fit ran; the others are compared
        worst = float(np.abs(answer - story.dataset.offset - row).max()) / max(1.0, float(np.abs(row).max()))
        if not worst <= ANSWER_TOLERANCE:
            raise RuntimeError(f"the saved network answers otherwise than the evaluated head, by {worst:.1e}, on {id_}")


def _golden(story: Story) -> list[Sample]:
    """Readable train items, spread over the set."""
    ids = story.splits.train
    spread = [ids[len(ids) * part // NUM_GOLDEN] for part in range(NUM_GOLDEN)]
    golden = []
    for id_ in dict.fromkeys(spread):
        sample = story.dataset.by_id[id_]
        try:
            story.bottom.table.preprocess.prepare(sample.item, name=id_)
        except HeadstartError:
            continue  # vanished since; one golden item fewer
        golden.append(sample)
    return golden


def _head_tensors(story: Story) -> bytes:
    head, calibration = story.adaptation.answering.head, story.adaptation.answering.calibration
    layers = dense_layers(head)
    names = [("weight", "bias")] if len(layers) == 1 else [(f"{n}.weight", f"{n}.bias") for n in range(len(layers))]
    tensors = {name: part for pair, layer in zip(names, layers, strict=True) for name, part in zip(pair, layer, strict=True)}
    return save_tensors(
        {
            **{name: np.ascontiguousarray(part) for name, part in tensors.items()},
            "temperatures": np.ascontiguousarray(calibration.temperatures),
            "thresholds": np.ascontiguousarray(calibration.thresholds),
            **({"offset": np.array([story.dataset.offset])} if story.dataset.offset else {}),
        }
    )


def _changes(story: Story, folder: Path) -> dict[str, bytes]:
    """The tensors that tuning changed, here or in the model that was the source."""
    path = folder / CHANGES if story.adaptation.strategy != "extract" else story.bottom.source.changes_path
    return {} if path is None else {CHANGES: path.read_bytes()}


def _manifest(story: Story, content: dict[str, Any]) -> Manifest:
    kept = story.adaptation
    return Manifest(
        format=FORMAT,
        headstart_version=content["headstart_version"],
        created=content["created"],
        task=story.dataset.task,
        modality=story.dataset.modality,
        labels=kept.answering.labels,
        thresholds=tuple(float(value) for value in kept.answering.calibration.thresholds),
        preprocess=story.bottom.table.preprocess.as_json(),
        backbone=story.bottom.prefix.spec.info.as_json(),
        strategy=kept.strategy,
        cut=kept.cut or "",
        block=kept.answering.block,
        views=kept.table.views,
        settings=_settings(story),
        packages=_packages(),
        files={},
    )


def _settings(story: Story) -> dict[str, Any]:
    """The options of the fit; of a folder only the name, as models are passed on."""
    settings = asdict(story.bottom.settings)
    return settings | ({"item_root": Path(settings["item_root"]).name} if settings["item_root"] else {})


def _packages() -> dict[str, str]:
    found = {}
    for name in ("headstart", "numpy", "onnxruntime", "pillow", "torch", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
