"""The story: labelled items in; an adapted, evaluated, saved model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from headstart.api.adaptation import Bottom, adapt, check_tunable, clear_traces, require_tuning
from headstart.api.classical import add_terms, check_classical
from headstart.api.content import Story
from headstart.api.evidence import gather_evidence
from headstart.api.opening import require_writing
from headstart.api.timing import Clock
from headstart.api.views import add_flips
from headstart.api.workplace import open_in_place, workplace
from headstart.api.writing import import_ahead, require_compiled, write_artifact
from headstart.backbones import BackboneSource, locate
from headstart.backbones.bundled import WITHOUT_WEIGHTS
from headstart.config import FitSettings
from headstart.data.checks import find_problems, raise_if_fatal
from headstart.data.duplicates import NEAR_DUPLICATE_THRESHOLD, duplicate_groups, join_pairs, near_duplicate_groups
from headstart.data.folds import needs_cross_validation
from headstart.data.rows import ReadOptions
from headstart.data.source import Reading, read_with_findings
from headstart.data.split import split
from headstart.data.targets import centre_values, labels_in
from headstart.errors import SettingError
from headstart.features import FeatureTable, compile_prefix, extract
from headstart.features.clips import suit_prefix
from headstart.features.fusion import parts_of
from headstart.inference import blas_threads_for
from headstart.memory import report_memory_errors
from headstart.model.model import Model
from headstart.records import Dataset, Finding, Splits, Task
from headstart.runtime import num_cores, raise_malloc_thresholds
from headstart.select.floor import FloorPlan
from headstart.select.fusion import find_footing
from headstart.select.geometry import choose_geometry
from headstart.select.precision import choose_precision
from headstart.select.strategy import check_pairs
from headstart.tuning.callbacks.base import Callback, check_callbacks

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel

# Comparing every pair grows with the square of the items: a minute at this number on two cores.
MAX_NEAR_DUPLICATE_ITEMS = 50_000
# A group of more of the items than this says that the features tell nothing apart, not that the items are copies, where
# nothing but features was compared.
MOST_ALIKE = 0.5

# So many items tell what share of all a network does not see.
MOST_NOTICED = 500

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the items done, and all items."""


@report_memory_errors()
def fit(
    data: Any,  # noqa: ANN401 - a path or any labelled data in memory
    *,
    out: str | Path | None = None,
    test: Any = None,  # noqa: ANN401 - as data
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    **options: Any,  # noqa: ANN401 - the options of FitSettings
) -> Model | LanguageModel:
    """Adapt a pretrained network to labelled items, evaluate it, and save it.

    Args:
        data: a folder per class, a table, an archive; or pairs of item and label, arrays, a frame, a `Dataset`. For the task
            'generate' a corpus: a text file, a folder of them, a .jsonl of texts or of prompts and completions.
        out: where the model's folder goes; None keeps it in a temporary folder until `model.save(path)`.
        test: a second source whose items are the test split.
        progress: told of the items done in each step.
        overwrite: whether a saved model at `out` is replaced; anything else there is always refused.
        callbacks: told of every step of tuning, where a network is tuned; subclasses of `headstart.Callback`.
        **options: any of `FitSettings`: backbone, strategy, balance, seed, …

    Returns:
        The saved model, opened: its `report`, and `predict`; or `generate`, for the task of that name.

    Raises:
        HeadstartError: if the data, an option, the backbone or the place to write to cannot be used; nothing is then
            left half-written, and the feature store keeps what was computed.
    """
    settings = FitSettings.from_options(options)
    check_callbacks(callbacks)
    require_tuning(settings)
    if settings.task == "generate":
        if test is not None:
            raise SettingError("a corpus has no second source for the test.", expected="one corpus.", mend="leave --test out.")
        require_writing()
        from headstart.api.language import fit_language

        return fit_language(data, settings, out=out, callbacks=callbacks, progress=progress, overwrite=overwrite)
    clock = Clock()
    raise_malloc_thresholds()  # the network is copied several times when it is saved
    ahead = Thread(target=import_ahead, daemon=True)
    ahead.start()
    with workplace(out, resume=settings.resume, overwrite=overwrite) as folder:
        with clock.step("read"):
            reading = read_with_findings(data, _read_options(settings), test=test)
            reading = replace(reading, dataset=centre_values(reading.dataset))
            _check_balance(settings.balance, reading.dataset.task)
            check_classical(settings.classical, reading.dataset.modality)
            check_pairs(settings.strategy, reading.dataset, None)
            source = locate(settings.backbone, modality=reading.dataset.modality)
            check_fused(settings, source)
        with blas_threads_for(len(reading.dataset.samples), num_cores()) as num_workers:
            plan = FloorPlan(balance=settings.balance, seed=settings.seed, num_workers=num_workers)
            bottom = _find_bottom(reading, source, settings, plan, clock, _narrator(progress, "features"))
            story = _adapt(bottom, folder, clock, callbacks, progress)
        with clock.step("report"):
            ahead.join()
            write_artifact(folder, story, clock.seconds)
            clear_traces(folder)
        return open_in_place(folder, out, overwrite=overwrite)


def _find_bottom(
    reading: Reading,
    source: BackboneSource,
    settings: FitSettings,
    plan: FloorPlan,
    clock: Clock,
    progress: Callable[[int, int], None] | None,
) -> Bottom:
    """Features, check, split, head: the floor, with all it stands on."""
    dataset = reading.dataset
    with clock.step("features"):
        prefix = compile_prefix(source, image_size=settings.image_size).wait()
        require_compiled(prefix)
        prefix = suit_prefix(prefix, (sample.item for sample in dataset.samples))
        check_tunable(settings, prefix)
        geometry = choose_geometry(prefix, dataset, geometry=settings.geometry, seed=settings.seed)
        precision = choose_precision(prefix, geometry.preprocess, dataset, precision=settings.precision, seed=settings.seed)
        prefix = precision.prefix
        table = extract(prefix, geometry.preprocess, dataset.samples, progress=progress)
    with clock.step("check"):
        near = near_duplicates(table, dataset)
        findings = check_dataset(dataset, table, near, reading.findings)
        raise_if_fatal(findings)
        splits = _split(dataset, table, near, geometry.asked | precision.asked, settings.seed)
        labels = labels_in(dataset, splits.train)
    with clock.step("features"):
        table, flips = add_flips(table, prefix, dataset, splits, settings=settings, progress=progress)
        table = add_terms(table, dataset, settings)
    with clock.step("head"):
        found = find_footing(table, dataset, splits, labels, plan)
    return Bottom(
        source=source if found.part is None else source.parts[found.part],
        settings=settings,
        dataset=dataset,
        prefix=prefix if found.part is None else parts_of(prefix)[found.part],
        geometry=geometry,
        precision=precision,
        table=found.table,
        contest=table,
        flips=flips,
        findings=findings,
        splits=splits,
        floor=found.floor,
        plan=plan,
        seconds=clock.seconds()["total"],
    )


def _adapt(bottom: Bottom, folder: Path, clock: Clock, callbacks: Sequence[Callback], progress: Progress | None) -> Story:
    """What is kept, floor or tuned network, and the evidence for it."""
    with clock.step("tune"):
        adaptation = adapt(bottom, folder, callbacks=callbacks, progress=progress)
    with clock.step("evaluate"):
        evidence = gather_evidence(adaptation, bottom)
    return Story(bottom=bottom, adaptation=adaptation, evidence=evidence)


def check_dataset(
    dataset: Dataset, table: FeatureTable, near: list[tuple[str, ...]], noticed: tuple[Finding, ...]
) -> list[Finding]:
    """Everything that is wrong with the data, what reading noticed included.

    Args:
        dataset: as read.
        table: features of its items, with the failures.
        near: groups of near duplicates.
        noticed: findings of reading.

    Returns:
        Findings, errors first.
    """
    found = find_problems(
        dataset,
        hashes=table.hashes,
        unreadable=table.failures,
        mends=table.mends,
        near_duplicates=near,
        measured=table.preprocess.copies_told_by or f"cosine of features ≥ {NEAR_DUPLICATE_THRESHOLD:g}",
    )
    # Neighbours are of one class more often than not, so the items looked at are spread over all.
    looked_at = table.ids[:: max(1, -(-len(table.ids) // MOST_NOTICED))]
    found += table.preprocess.notice({id_: dataset.by_id[id_].item for id_ in looked_at})
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted([*noticed, *found], key=lambda finding: order[finding.severity])


def _check_balance(balance: str, task: Task) -> None:
    if balance == "weights" and task != "single":
        raise SettingError(
            f"balance is 'weights', and the task is {task}.",
            expected="the single task: class weights are for items of one class each.",
            mend="leave --balance out, or pass --balance none.",
        )


def check_fused(settings: FitSettings, source: BackboneSource) -> None:
    """Refuse to train several backbones at once.

    Args:
        settings: of the fit.
        source: the backbone.

    Raises:
        SettingError: if a strategy or head that trains is asked for.
    """
    if source.parts and settings.strategy not in {"auto", "extract"}:
        tunable = next((part.name for part in source.parts if part.name not in WITHOUT_WEIGHTS), source.parts[0].name)
        raise SettingError(
            f"strategy is {settings.strategy!r}, and {source.name} is several backbones, which are not tuned.",
            expected="--strategy extract, or auto, which tunes a backbone that turns out to be better alone.",
            mend=f"--strategy auto; or name the one to tune: --backbone {tunable}",
        )


def _read_options(settings: FitSettings) -> ReadOptions:
    return ReadOptions(
        modality=settings.modality,
        task=settings.task,
        item_column=settings.item_column,
        label_column=settings.label_column,
        group_column=settings.group_column,
        split_column=settings.split_column,
        merge_labels=dict(settings.merge_labels) or None,
        label_columns=settings.label_columns,
        label_separator=settings.label_separator,
        label_names=settings.label_names,
        item_root=None if settings.item_root is None else Path(settings.item_root),
        encoding=settings.encoding,
    )


def _narrator(progress: Progress | None, step: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(step, done, total)


def near_duplicates(table: FeatureTable, dataset: Dataset) -> list[tuple[str, ...]]:
    """Groups of items that all but coincide, by themselves, or by the features of the last block and their pixels.

    Args:
        table: features of the items.
        dataset: the items.

    Returns:
        Groups of ids; none where there are too many items to compare, or the features are untrained.
    """
    if not 1 < len(table.ids) <= MAX_NEAR_DUPLICATE_ITEMS:
        return []
    pairs = table.preprocess.near_copies([dataset.by_id[id_].item for id_ in table.ids])
    if pairs is not None:
        return join_pairs(table.ids, pairs)
    # Untrained features put everything close to everything, and so may those that learned from few items.
    if (table.spec.info.base or table.spec.info.name).startswith("random:"):
        return []
    confirm = table.preprocess.pixel_comparison([dataset.by_id[id_].item for id_ in table.ids])
    found = near_duplicate_groups(table.ids, table.features("last"), confirm=confirm)
    return found if confirm or max(map(len, found), default=0) <= MOST_ALIKE * len(table.ids) else []


def _split(dataset: Dataset, table: FeatureTable, near: list[tuple[str, ...]], asked: frozenset[str], seed: int) -> Splits:
    """The data's own split, a random one, or, where the data are too few for either, all of it for cross-validation."""
    groups = {id_: f"duplicates {index + 1}" for index, ids in enumerate(duplicate_groups(table.hashes)) for id_ in ids}
    groups |= {id_: f"alike {index + 1}" for index, ids in enumerate(near) for id_ in ids}
    exclude = frozenset(table.failures)
    own = any(sample.split in {"test", "valid"} for sample in dataset.samples)
    pinned = frozenset() if own else asked
    splits = split(dataset, seed=seed, groups=groups, pinned_train=pinned, exclude=exclude)
    if own and splits.test:
        return splits
    reason = needs_cross_validation(dataset, table.ids) or ("" if splits.test else "no item can be held out")
    if not reason:
        return splits
    return Splits(
        train=(*splits.train, *splits.valid, *splits.test), groups=splits.groups, origin=f"cross-validation: {reason}"
    )
