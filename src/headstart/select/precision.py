"""Whether the frozen network computes in 8-bit whole numbers.

Only where that is measured to be faster, and cross-validation does not miss what it costs. It is asked where there are many
items, since asking takes a second network and its features of some of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import SettingError
from headstart.features import extract
from headstart.features.fusion import FusedPrefix
from headstart.features.int8 import quantized, times_faster
from headstart.features.prefix import OnnxPrefix, Prefix
from headstart.heads.judge import mean_and_error
from headstart.preprocess.batches import in_batches
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import Preprocess
from headstart.records import Dataset, Sample
from headstart.select.geometry import contestants, part_to_ask
from headstart.select.trial import Trial, hold_block_trial

MIN_ITEMS = 2_000
# Less than this, and a busier moment could have been the reason.
LEAST_FASTER = 1.2
# Of the loss in float32: what the loss in whole numbers may be above it at most, two standard errors included.
MOST_WORSE = 0.05
MEASURED_ITEMS = 32


@dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """What computes the features, and why."""

    prefix: Prefix
    reason: str
    trials: tuple[Trial, ...] = ()
    asked: frozenset[str] = frozenset()
    """Ids the choice was made on; they must train, or the test would have been read before its time."""
    parts: tuple[PrecisionChoice, ...] = ()
    """Of several networks, each one's choice."""


def choose_precision(prefix: Prefix, preprocess: Preprocess, dataset: Dataset, *, precision: str, seed: int) -> PrecisionChoice:
    """Choose what the frozen network computes in.

    Args:
        prefix: the compiled prefix, in float32.
        preprocess: what items go through.
        dataset: as read; items of its own test or valid split are not looked at.
        precision: 'auto', 'float32' or 'int8'.
        seed: of the part that is asked, and of the folds.

    Returns:
        The prefix to use.

    Raises:
        SettingError: if 'int8' is asked for, and the network has no such form.
    """
    if isinstance(prefix, FusedPrefix):
        pairs = prefix.with_preprocess(preprocess)
        return _together([choose_precision(*pair, dataset, precision=precision, seed=seed) for pair in pairs])
    if precision == "float32" or not isinstance(prefix, OnnxPrefix):
        return _settled(prefix, precision)
    if precision == "auto" and len(dataset.samples) < MIN_ITEMS:
        return PrecisionChoice(
            prefix=prefix, reason=f"too few items to ask: {len(dataset.samples)} of the {MIN_ITEMS} it takes"
        )
    other, why_not = quantized(prefix)
    if precision == "int8":
        if other is None:
            raise _no_int8(prefix, why_not)
        return PrecisionChoice(prefix=other, reason="as asked")
    if other is None:
        return PrecisionChoice(prefix=prefix, reason=why_not)
    asked = part_to_ask(dataset, seed)
    faster = times_faster(prefix, other, _batches(prefix, preprocess, asked))
    if faster < LEAST_FASTER:
        return PrecisionChoice(prefix=prefix, reason=f"int8 is {faster:.2f} times as fast on this machine")
    trials = _hold_trials((prefix, other), preprocess, dataset, asked, seed=seed)
    ids = frozenset(sample.id for sample in asked)
    if len(trials) < 2:
        return PrecisionChoice(prefix=prefix, reason="too few readable items to ask", asked=ids)
    equal, told = as_good(trials[1], trials[0])
    reason = f"{faster:.1f} times as fast on this machine; by cross-validation on {len(asked)} items, {told}"
    return PrecisionChoice(prefix=other if equal else prefix, reason=reason, trials=trials, asked=ids)


def _together(parts: Sequence[PrecisionChoice]) -> PrecisionChoice:
    """The choices of several networks, each of which was asked by itself."""
    asked = frozenset[str]().union(*(part.asked for part in parts))
    prefix = FusedPrefix([part.prefix for part in parts])
    return PrecisionChoice(prefix=prefix, reason="asked for each backbone", asked=asked, parts=tuple(parts))


def as_good(challenger: Trial, holder: Trial) -> tuple[bool, str]:
    """Whether a challenger's loss is surely no more than a little higher, and so in words."""
    worse, error = mean_and_error(challenger.losses - holder.losses, holder.clusters)
    most = MOST_WORSE * holder.loss
    return worse + 2 * error <= most, f"loss higher by {worse:.4f} ± {error:.4f}, where {most:.4f} is allowed"


def _settled(prefix: Prefix, precision: str) -> PrecisionChoice:
    if precision == "int8":
        raise _no_int8(prefix, quantized(prefix)[1])
    return PrecisionChoice(prefix=prefix, reason="as asked" if precision == "float32" else quantized(prefix)[1])


def _no_int8(prefix: Prefix, why: str) -> SettingError:
    return SettingError(
        f"precision is 'int8', and backbone {prefix.spec.info.name!r} has no such form: {why}.",
        expected="a compiled network with products that can be put into whole numbers, such as an encoder of texts.",
        mend="--precision auto",
    )


def _batches(prefix: Prefix, preprocess: Preprocess, samples: list[Sample]) -> list[np.ndarray]:
    """What the network is given of some items, readable ones, spread over all."""
    chosen, prepared = samples[:: max(1, len(samples) // MEASURED_ITEMS)], {}
    for sample in chosen:
        with contextlib.suppress(UnreadableItemError):
            prepared[sample.id] = preprocess.prepare(preprocess.load(sample.item, name=sample.id), name=sample.id)
    readable = [sample for sample in chosen if sample.id in prepared]
    return [
        preprocess.collate([prepared[sample.id] for sample in few])
        for few in in_batches(readable, prefix.batch_size, lambda sample: preprocess.size(sample.item))
    ]


def _hold_trials(
    prefixes: tuple[Prefix, Prefix], preprocess: Preprocess, dataset: Dataset, asked: list[Sample], *, seed: int
) -> tuple[Trial, ...]:
    trials = []
    for prefix in prefixes:
        table = extract(prefix, preprocess, asked)
        items = contestants(dataset, table.ids)
        if items is None:
            return ()
        trials.append(hold_block_trial(prefix.precision, table, "multi", items, seed=seed))
    return tuple(trials)
