"""What can be done beside fitting: evaluate a saved model, check data, give features to other tools, write the page again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.api.feature_files import writer_for
from headstart.api.fit import check_dataset, near_duplicates
from headstart.api.opening import require_writing
from headstart.api.unlabelled import gather
from headstart.artifact.store import load, read_manifest, replace_file
from headstart.backbones import locate
from headstart.data.rows import ReadOptions
from headstart.data.source import read_with_findings
from headstart.errors import SettingError
from headstart.features import FeatureTable, compile_prefix, extract
from headstart.features.clips import suit_prefix
from headstart.features.prefix import Prefix
from headstart.model.items import unreadable_error
from headstart.model.place import check_file_replaceable
from headstart.preprocess.recipe import Preprocess
from headstart.records import Finding, Modality, Sample
from headstart.report.page import render_report
from headstart.runtime import as_utf8

Progress = Callable[[int, int], None]

ROWS_AT_ONCE = 1_000


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
    prefix = _prefix_for(dataset.samples, dataset.modality, backbone)
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
    **options: Any,  # noqa: ANN401 - those of ReadOptions
) -> FeatureTable:
    """Compute the pooled features of every block.

    Args:
        data: as for `fit`, or a folder or list of items without labels.
        backbone: by name.
        block: checked to exist; `table.features(block)` gives its columns.
        geometry: crop, pad or squash of images, head, head+tail or windows of texts, spread or head of sounds;
            'auto' is the first.
        image_size: side in pixels, or None for the weights' own.
        progress: called with the items done, and all.
        **options: item_column, label_column, encoding, … of labelled data.

    Returns:
        The table of the readable items; `table.features(block)` is (N, D) float32.

    Raises:
        DataError: if no item can be read; `table.failures` names those of several that cannot.
        SettingError: if there is no such block.
    """
    samples, modality = gather(data, backbone, ReadOptions(**options))
    prefix = _prefix_for(samples, modality, backbone, image_size)
    prefix.spec.runs(block)
    table = extract(prefix, _fitted(prefix, geometry), samples, progress=progress)
    if not table.ids:
        raise unreadable_error(table.failures)
    return table


def embed_to_file(  # noqa: PLR0913 - one parameter for each option
    data: Any,  # noqa: ANN401 - as embed
    out: str | Path,
    *,
    backbone: str = "auto",
    block: str = "last",
    geometry: str = "auto",
    image_size: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    **options: Any,  # noqa: ANN401 - those of ReadOptions
) -> dict[str, Any]:
    """Write features as Parquet or .npz (ids, labels, vectors), in bounded memory however many items there are.

    Args:
        data: as for `embed`.
        out: the file, .parquet or .npz; appears only when it is whole.
        backbone: by name.
        block: which block's features; 'last', 'multi', or a block's name.
        geometry: crop, pad or squash of images, head, head+tail or windows of texts, spread or head of sounds;
            'auto' is the first.
        image_size: side in pixels, or None for the weights' own.
        progress: called with the items done, and all.
        overwrite: whether a file that is there is replaced.
        **options: item_column, label_column, encoding, … of labelled data.

    Returns:
        items, width, unreadable (id to reason), cache hits and misses.

    Raises:
        MissingPackageError: if it is a Parquet file, and pyarrow is not installed.
        DataError: if no item can be read.
        SettingError: if there is no such block, or the file is there already or cannot be written.
    """
    target = Path(out)
    check_file_replaceable(target, overwrite=overwrite)
    write = writer_for(target)
    samples, modality = gather(data, backbone, ReadOptions(**options))
    prefix = _prefix_for(samples, modality, backbone, image_size)
    width, preprocess = sum(prefix.spec.widths(block)), _fitted(prefix, geometry)
    labels = {sample.id: "|".join(sample.labels) or None for sample in samples}
    told: dict[str, Any] = {"items": 0, "width": width, "unreadable": {}, "hits": 0, "misses": 0}
    partial = target.with_name(f".headstart-{os.urandom(6).hex()}.partial")
    chunks = _chunks(prefix, preprocess, samples, block, told, progress)
    try:
        write(partial, ((ids, [labels[id_] for id_ in ids], vectors) for ids, vectors in chunks), width)
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
    replace_file(folder, "report.html", as_utf8(page))
    return folder / "report.html"


def _prefix_for(samples: Sequence[Sample], modality: Modality, backbone: str, image_size: int | None = None) -> Prefix:
    """A backbone by name, compiled, as these samples need it."""
    prefix = compile_prefix(locate(backbone, modality=modality), image_size=image_size).wait()
    return suit_prefix(prefix, (sample.item for sample in samples))


def _fitted(prefix: Prefix, fitting: str = "auto") -> Preprocess:
    """The preprocess with a way of fitting, by default the first."""
    base = prefix.spec.preprocess
    return base.with_fitting(base.fittings[0] if fitting == "auto" else fitting)


def _chunks(
    prefix: Prefix,
    preprocess: Preprocess,
    samples: tuple[Sample, ...],
    block: str,
    told: dict[str, Any],
    progress: Progress | None,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Row groups of at most a thousand items."""
    for start in range(0, len(samples), ROWS_AT_ONCE):
        few = samples[start : start + ROWS_AT_ONCE]
        table = extract(prefix, preprocess, few, progress=progress and _from(progress, start, len(few), len(samples)))
        told["items"] += len(table.ids)
        told["unreadable"] |= table.failures
        told["hits"] += table.hits
        told["misses"] += table.misses
        if table.ids:
            yield list(table.ids), table.features(block)


def _from(progress: Progress, start: int, count: int, total: int) -> Progress:
    """The progress of all items, told of some of them; those of several networks are told of each item several times."""
    return lambda done, all_: progress(start + count * done // all_, total)
