"""What can be done beside fitting: evaluate a saved model, check data, give features to other tools, write the page again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.api.fit import check_dataset
from headstart.artifact.store import load, replace_file
from headstart.backbones import locate
from headstart.data.duplicates import near_duplicate_groups
from headstart.data.layout import class_folders_with_items
from headstart.data.rows import ReadOptions
from headstart.data.source import read_with_findings
from headstart.data.targets import encode_targets
from headstart.errors import DataError, MissingPackageError, SettingError
from headstart.evidence.evaluate import evaluate_multi, evaluate_single, evaluate_value
from headstart.evidence.evaluation import Evaluation
from headstart.features import FeatureTable, compile_prefix, extract
from headstart.features.extract import extract_batches, feature_store
from headstart.features.prefix import Prefix
from headstart.model.model import Model, expand, unreadable_error
from headstart.preprocess.image import ImagePreprocess
from headstart.records import Finding, Sample
from headstart.report.page import render_report
from headstart.select.geometry import DEFAULT

Progress = Callable[[int, int], None]


def evaluate(model: Model | str | Path, data: Any, *, seed: int = 0, **columns: Any) -> Evaluation:  # noqa: ANN401
    """Score a saved model on labelled data it did not learn from.

    Args:
        model: opened, or its folder.
        data: as for `fit`; where it has a test split, only that is used.
        seed: of the bootstrap.
        **columns: item_column, label_column, … of a table.

    Returns:
        The evaluation.

    Raises:
        DataError: if an item cannot be read, or has a label that the model does not know.
    """
    model = model if isinstance(model, Model) else load(model)
    manifest = model.manifest
    options = ReadOptions(modality=manifest.modality, task=manifest.task, least_classes=1, **columns)
    dataset = read_with_findings(data, options).dataset
    own = [sample for sample in dataset.samples if sample.split == "test"]
    samples = own or list(dataset.samples)
    unknown = sorted({label for sample in samples for label in sample.labels} - set(manifest.labels))
    if unknown:
        raise DataError(
            f"the data has labels that the model does not know: {', '.join(map(repr, unknown[:10]))}.",
            expected=f"labels among {', '.join(map(repr, manifest.labels[:20]))}.",
            mend="correct the labels, or fit again with such items.",
        )
    answers = model.answers([sample.item for sample in samples])
    if answers.unreadable:
        raise unreadable_error(answers.unreadable)
    ids = [sample.id for sample in samples]
    truth, values = encode_targets(dataset, ids, manifest.labels), answers.values.astype(np.float64)
    match manifest.task:
        case "single":
            return evaluate_single(values / values.sum(axis=1, keepdims=True), truth, manifest.labels, seed=seed)
        case "multi":
            thresholds = np.array(manifest.thresholds)
            return evaluate_multi(values, truth > 0.5, manifest.labels, seed=seed, thresholds=thresholds)
        case "value":
            return evaluate_value(values[:, 0], truth, seed=seed)


def check(
    data: Any,  # noqa: ANN401 - as fit
    *,
    backbone: str = "auto",
    test: Any = None,  # noqa: ANN401 - as fit
    progress: Progress | None = None,
    **options: Any,  # noqa: ANN401 - those of ReadOptions
) -> list[Finding]:
    """Say what is wrong with labelled data, before any training.

    Args:
        data: as for `fit`.
        backbone: whose features tell near duplicates.
        test: a second source whose items are the test split.
        progress: called with the items done, and all.
        **options: modality, task, item_column, …

    Returns:
        Findings, errors first; empty if all is well.

    Raises:
        DataError: if the data cannot be read at all.
    """
    reading = read_with_findings(data, ReadOptions(**options), test=test)
    dataset = reading.dataset
    prefix = compile_prefix(locate(backbone, modality=dataset.modality)).wait()
    table = extract(prefix, _plain_preprocess(prefix), dataset.samples, progress=progress)
    near = near_duplicate_groups(table.ids, table.features("last")) if len(table.ids) > 1 else []
    return check_dataset(dataset, table, near, reading.findings)


def embed(
    data: Any,  # noqa: ANN401 - items, with labels or without
    *,
    backbone: str = "auto",
    block: str = "last",
    geometry: str = DEFAULT,
    image_size: int | None = None,
    progress: Progress | None = None,
) -> FeatureTable:
    """Compute the pooled features of every block.

    Args:
        data: as for `fit`, or a folder or list of items without labels.
        backbone: by name.
        block: checked to exist; `table.features(block)` gives its columns.
        geometry: crop, pad or squash.
        image_size: side in pixels, or None for the weights' own.
        progress: called with the items done, and all.

    Returns:
        The table; `table.features(block)` is (N, D) float32.
    """
    samples = _samples(data)
    prefix = compile_prefix(locate(backbone), image_size=image_size).wait()
    prefix.spec.columns(block)
    return extract(prefix, prefix.spec.preprocess.with_geometry(geometry), samples, progress=progress)


def embed_to_parquet(
    data: Any,  # noqa: ANN401 - as embed
    out: str | Path,
    *,
    backbone: str = "auto",
    block: str = "last",
    geometry: str = DEFAULT,
    image_size: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write features as Parquet (id, label, vector), in bounded memory however many items there are.

    Args:
        data: as for `embed`.
        out: the file; appears only when it is whole.
        backbone: by name.
        block: which block's features; 'last', 'multi', or a block's name.
        geometry: crop, pad or squash.
        image_size: side in pixels, or None for the weights' own.
        progress: called with the items done, and all.

    Returns:
        items, width, unreadable (id to reason), cache hits and misses.

    Raises:
        MissingPackageError: if pyarrow is not installed.
        DataError: if no item can be read.
        SettingError: if there is no such block, or the file cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError("pyarrow", extra="train", purpose="writing Parquet files") from error
    samples = _samples(data)
    prefix = compile_prefix(locate(backbone), image_size=image_size).wait()
    columns = prefix.spec.columns(block)
    preprocess = prefix.spec.preprocess.with_geometry(geometry)
    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("label", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32(), columns.stop - columns.start)),
        ]
    )
    labels = {sample.id: "|".join(sample.labels) or None for sample in samples}
    told: dict[str, Any] = {"items": 0, "width": columns.stop - columns.start, "unreadable": {}, "hits": 0, "misses": 0}
    target = Path(out)
    partial = target.with_name(target.name + ".partial")
    try:
        with pyarrow.parquet.ParquetWriter(partial, schema) as writer:
            for ids, vectors in _chunks(prefix, preprocess, samples, columns, told, progress):
                flat = pyarrow.array(vectors.ravel())
                lists = pyarrow.FixedSizeListArray.from_arrays(flat, columns.stop - columns.start)
                rows = [pyarrow.array(ids), pyarrow.array([labels[id_] for id_ in ids], pyarrow.string()), lists]
                writer.write_table(pyarrow.Table.from_arrays(rows, schema=schema))
        if told["items"] == 0:
            raise unreadable_error(told["unreadable"])
        os.replace(partial, target)  # noqa: PTH105 - replaces on every system
    except OSError as error:
        raise SettingError(
            f"{target} cannot be written: {error.strerror or error}.",
            expected="a file in a folder that exists and can be written.",
            mend="choose another path for --out, or free some space.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return told


def rewrite_report(artifact: str | Path) -> Path:
    """Write report.html again from the evidence in a saved model.

    Args:
        artifact: its folder.

    Returns:
        The page's path.

    Raises:
        ArtifactError: if it is no saved model, was changed, or cannot be written.
    """
    model = load(artifact)
    replace_file(model.folder, "report.html", render_report(model.report.content).encode())
    return model.folder / "report.html"


def _plain_preprocess(prefix: Prefix) -> ImagePreprocess:
    return prefix.spec.preprocess.with_geometry(DEFAULT)


def _samples(data: Any) -> tuple[Sample, ...]:  # noqa: ANN401 - items, with labels or without
    """Labelled data as `fit` reads it; or a folder, or list of items, that has no labels."""
    path = Path(data) if isinstance(data, str | Path) else None
    if path is not None and path.is_file() and path.suffix.casefold() not in {".jpg", ".jpeg", ".png"}:
        return read_with_findings(data).dataset.samples
    if path is not None and path.is_dir() and class_folders_with_items(path):
        return read_with_findings(data).dataset.samples
    named = expand(data, "image") if path is not None or isinstance(data, list | tuple) else []
    if not named:
        return read_with_findings(data).dataset.samples
    return tuple(Sample(id=name, item=item) for name, item in named)


def _chunks(
    prefix: Prefix,
    preprocess: ImagePreprocess,
    samples: tuple[Sample, ...],
    columns: slice,
    told: dict[str, Any],
    progress: Progress | None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Row groups of about a thousand items."""
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    done = 0
    with feature_store(prefix, preprocess) as store:
        for batch in extract_batches(prefix, preprocess, samples, store=store):
            ids += batch.ids
            vectors.append(batch.vectors[:, 0, columns])
            told["items"] += len(batch.ids)
            told["unreadable"] |= batch.failures
            told["hits"] += batch.hits
            told["misses"] += batch.misses
            done += len(batch.ids) + len(batch.failures)
            if progress:
                progress(done, len(samples))
            if len(ids) >= 1_000:
                yield ids, np.concatenate(vectors)
                ids, vectors = [], []
    if ids:
        yield ids, np.concatenate(vectors)
