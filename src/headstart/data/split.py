"""Which samples train and which test: the data's own split where it has one, else a random one by class and group."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headstart.data.rows import clean_text, count_of, name_some
from headstart.data.units import Unit, count_strata, make_units, shuffled_by_rarity, stratify_units, stratum_totals
from headstart.errors import DataError, SettingError
from headstart.records import Dataset, Sample, Splits

TEST_FRACTION = 0.2
"""How much of the data a random split holds out."""


def split(
    dataset: Dataset,
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
    pinned_train: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
    test_fraction: float = TEST_FRACTION,
) -> Splits:
    """Split a dataset into train and test, or keep the split it comes with.

    The data's own test split is kept as it is. Where the data has only train and valid, valid is the test split: choices
    are made by cross-validation within train, so nothing else needs it. Samples the data puts on no side train. Without a
    split of the data's own, a random one takes `test_fraction` of each class, moves groups as a whole, leaves at least one
    sample of every class in train, and depends on the ids and the seed only, not on the order of the samples.

    Args:
        dataset: as read.
        seed: of the random split.
        groups: sample id → group, as of duplicates; joined with the groups the samples have.
        pinned_train: ids that must train, such as those a choice was made on; taken out of the data's own test split too.
        exclude: ids to leave out.
        test_fraction: in (0, 1).

    Returns:
        Ids in the order of the dataset; `test` is empty, and `origin` says why, where no sample can be held out.

    Raises:
        SettingError: if `test_fraction` is out of range.
        DataError: if nothing is left to train on.
    """
    if not 0 < test_fraction < 1:
        raise SettingError(
            f"test_fraction is {test_fraction}.",
            expected="a share between 0 and 1, both excluded.",
            mend="leave it out for 0.2, or pass a number such as 0.25.",
        )
    samples = [sample for sample in dataset.samples if sample.id not in exclude]
    units = make_units(samples, dataset, groups or {})
    named = {name: unit.group for unit in units if unit.group is not None for name in unit.ids}
    official = _official_sides(samples, pinned_train)
    if official is None:
        held_out, origin = _hold_out(units, dataset, seed, pinned_train, test_fraction)
        sides = {sample.id: "test" if sample.id in held_out else "train" for sample in samples}
    else:
        sides, origin = official
    by_side = {side: tuple(s.id for s in samples if sides[s.id] == side) for side in ("train", "valid", "test")}
    if not by_side["train"]:
        raise DataError(
            f"nothing is left to train on: {count_of(len(samples), 'sample')} left, all of them in the data's own test split.",
            expected="samples that train beside those that test.",
            mend="put samples into train, or leave the split out to get a random one.",
        )
    return Splits(**by_side, groups=named, origin=origin)


def write_splits_csv(path: Path, dataset: Dataset, splits: Splits) -> None:
    """Write which sample went where: UTF-8 CSV with the header id,item,label,group,split, in the order of the dataset.

    Several labels are joined by '|', or written as a JSON list where one of them holds a '|' itself. Paths are relative to the
    folder of the data, so that a copy of the file there can be read as a table. Items that are neither paths nor texts are left
    blank, as their ids name them.

    Args:
        path: of the file, which is replaced.
        dataset: that was split.
        splits: of its ids; samples in none of them are not written.
    """
    side_of = {name: side for side in ("train", "valid", "test") for name in getattr(splits, side)}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "item", "label", "group", "split"])
        for sample in dataset.samples:
            if sample.id in side_of:
                group = splits.groups.get(sample.id, sample.group or "")
                writer.writerow([sample.id, _item_text(sample), _label_text(sample), group, side_of[sample.id]])


def _official_sides(samples: list[Sample], pinned: frozenset[str]) -> tuple[dict[str, str], str] | None:
    """The sides by the data's own split, and its origin in words; None if the data has none."""
    own = {sample.split for sample in samples}
    if "test" in own:
        sides: dict[str, str] = {sample.id: sample.split or "train" for sample in samples}
        origin = "the data's own test split"
    elif "valid" in own:
        sides = {sample.id: "test" if sample.split == "valid" else "train" for sample in samples}
        origin = "the data's own valid split, used as test"
    else:
        return None
    moved = [name for name, side in sides.items() if side != "train" and name in pinned]
    sides.update(dict.fromkeys(moved, "train"))
    return sides, origin + (f", less {count_of(len(moved), 'sample')} that must train" if moved else "")


def _hold_out(units: list[Unit], dataset: Dataset, seed: int, pinned: frozenset[str], fraction: float) -> tuple[set[str], str]:
    """Choose units for the test split, by the shares of the strata."""
    totals = stratum_totals(units, count_strata(dataset))
    wanted = np.where(totals > 1, np.maximum(1, np.floor(fraction * totals + 0.5)), 0).astype(np.int64)
    choose = _choose_stratified if dataset.task == "multi" else _choose_greedily
    chosen = choose(units, totals, wanted, seed, pinned)
    held_out = {name for unit in chosen for name in unit.ids}
    in_train = totals - stratum_totals(chosen, len(totals))
    share = f"{100 * (1 - fraction):.0f}/{100 * fraction:.0f}"
    if not held_out:
        reason = "every class would lose its last sample, or is tied together by groups or pinned to train"
        return held_out, f"no test split is possible: {reason}"
    grouped = " by group" if any(unit.group is not None for unit in units) else ""
    untested = (
        []
        if dataset.task == "value"
        else [
            repr(label) for number, label in enumerate(dataset.labels) if totals[number] and in_train[number] == totals[number]
        ]
    )
    lacking = f"; nothing of {name_some(untested)} could be held out" if untested else ""
    return held_out, f"random {share}{grouped}, seed {seed}{lacking}"


def _choose_greedily(
    units: list[Unit], totals: np.ndarray, wanted: np.ndarray, seed: int, pinned: frozenset[str]
) -> list[Unit]:
    """Units of items in one stratum each, where a unit brings the strata nearer to what is wanted than leaving it out does."""
    wanted, in_train, chosen = wanted.copy(), totals.copy(), []
    for unit in shuffled_by_rarity(units, totals, seed):
        if not pinned.isdisjoint(unit.ids) or np.any(in_train[unit.strata] <= unit.counts):
            continue
        needed = wanted[unit.strata]
        if np.sum(np.abs(needed) - np.abs(needed - unit.counts)) > 0:
            chosen.append(unit)
            wanted[unit.strata] -= unit.counts
            in_train[unit.strata] -= unit.counts
    return chosen


def _choose_stratified(
    units: list[Unit], totals: np.ndarray, wanted: np.ndarray, seed: int, pinned: frozenset[str]
) -> list[Unit]:
    """Units of items with several labels each, by iterative stratification; every label keeps an item in train."""
    parts = stratify_units(units, np.stack([totals - wanted, wanted]), seed, pinned)
    chosen = [unit for unit, part in zip(units, parts, strict=True) if part == 1]
    in_train = totals - stratum_totals(chosen, len(totals))
    for stratum in np.flatnonzero((in_train == 0) & (totals > 0)):
        if in_train[stratum] == 0:  # an earlier one may have brought it back
            back = min((unit for unit in chosen if stratum in unit.strata), key=lambda unit: (len(unit.ids), unit.ids))
            chosen.remove(back)
            in_train[back.strata] += back.counts
    return chosen


def _item_text(sample: Sample) -> str:
    if isinstance(sample.item, Path):
        return clean_text(_below_the_data(sample.item, sample.id))
    return clean_text(sample.item) if isinstance(sample.item, str) else ""


def _below_the_data(path: Path, id_: str) -> str:
    """What of a path its id has, too: the id may begin with a split's name and end with a number."""
    parts, named = path.parts, re.sub(r"#\d+$", "", id_).split("/") if not id_.endswith(path.name) else id_.split("/")
    alike = 0
    while alike < min(len(parts), len(named)) and clean_text(parts[-1 - alike]) == named[-1 - alike]:
        alike += 1
    return "/".join(parts[len(parts) - max(alike, 1) :])


def _label_text(sample: Sample) -> str:
    if sample.value is not None:
        return repr(sample.value)
    if len(sample.labels) > 1 and any("|" in label for label in sample.labels):
        return json.dumps(sample.labels, ensure_ascii=False)
    return "|".join(sample.labels)
