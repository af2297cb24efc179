"""What can be done beside fitting: evaluate a saved model, check data, give features to other tools, write the page again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headstart.api.fit import check_dataset, near_duplicates
from headstart.api.opening import require_writing
from headstart.api.unlabelled import gather
from headstart.artifact.store import load, read_manifest, replace_file
from headstart.backbones import locate
from headstart.data.rows import ReadOptions
from headstart.data.source import read_with_findings
from headstart.errors import MissingPackageError, SettingError
from headstart.features import FeatureTable, compile_prefix, extract
from headstart.features.extract import extract_batches, feature_store
from headstart.features.prefix import Prefix
from headstart.model.items import unreadable_error
from headstart.preprocess.recipe import Preprocess
from headstart.records import Finding, Sample
from headstart.report.page import render_report

Progress = Callable[[int, int], None]


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
    table = extract(prefix, _fitted(prefix), dataset.samples, progress=progress)
    return check_dataset(dataset, table, near_duplicates(table, dataset), reading.findings)


def embed(
    data: Any,  # noqa: ANN401 - items, with labels or without
    *,
    backbone: str = "auto",
    block: str = "last",
    geometry: str = "auto",
    image_size: int | None = None,
    progress: Progress | None = None,
) -> FeatureTable:
    """Compute the pooled features of every block.

    Args:
        data: as for `fit`, or a folder or list of items without labels.
        backbone: by name.
        block: checked to exist; `table.features(block)` gives its columns.
        geometry: crop, pad or squash of images, head, head+tail or windows of texts; 'auto' is the first, pad or head.
        image_size: side in pixels, or None for the weights' own.
        progress: called with the items done, and all.

    Returns:
        The table of the readable items; `table.features(block)` is (N, D) float32.

    Raises:
        DataError: if no item can be read; `table.failures` names those of several that cannot.
        SettingError: if there is no such block.
    """
    samples, modality = gather(data, backbone)
    prefix = compile_prefix(locate(backbone, modality=modality), image_size=image_size).wait()
    prefix.spec.columns(block)
    table = extract(prefix, _fitted(prefix, geometry), samples, progress=progress)
    if not table.ids:
        raise unreadable_error(table.failures)
    return table


def embed_to_parquet(
    data: Any,  # noqa: ANN401 - as embed
    out: str | Path,
    *,
    backbone: str = "auto",
    block: str = "last",
    geometry: str = "auto",
    image_size: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write features as Parquet (id, label, vector), in bounded memory however many items there are.

    Args:
        data: as for `embed`.
        out: the file; appears only when it is whole.
        backbone: by name.
        block: which block's features; 'last', 'multi', or a block's name.
        geometry: crop, pad or squash of images, head, head+tail or windows of texts; 'auto' is the first, pad or head.
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
    if Path(out).suffix.casefold() not in {".parquet", ".pq"}:
        raise SettingError(
            f"{out} is not named as a Parquet file.",
            expected="a path that ends in .parquet.",
            mend=f"--out {Path(out).with_suffix('.parquet')}",
        )
    samples, modality = gather(data, backbone)
    prefix = compile_prefix(locate(backbone, modality=modality), image_size=image_size).wait()
    columns = prefix.spec.columns(block)
    preprocess = _fitted(prefix, geometry)
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
    folder = Path(artifact)
    if read_manifest(folder).task == "generate":
        require_writing()
        from headstart.language.page import render_page
        from headstart.language.saving import read_report

        page = render_page(read_report(folder))
    else:
        page = render_report(load(folder).report.content)
    replace_file(folder, "report.html", page.encode())
    return folder / "report.html"


def _fitted(prefix: Prefix, fitting: str = "auto") -> Preprocess:
    """The preprocess with a way of fitting, by default the first."""
    base = prefix.spec.preprocess
    return base.with_fitting(base.fittings[0] if fitting == "auto" else fitting)


def _chunks(
    prefix: Prefix,
    preprocess: Preprocess,
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
