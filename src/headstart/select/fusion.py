"""Several backbones for the same items: which one, all together, or a mixture, asked of the data.

Cross-validation within train says what each backbone's features tell alone, and what all tell side by side. One head on all
features is kept where it is better than the best backbone alone by more than one standard error of the paired difference.
Otherwise the heads of each and the one of all answer in shares (`ensemble`), until the data say that one of them is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.features import FeatureTable
from headstart.inference import ordered_map
from headstart.records import Dataset, Splits
from headstart.select.ensemble import TOGETHER, mix_heads
from headstart.select.floor import Floor, FloorPlan, choosable_blocks, find_floor
from headstart.select.geometry import contestants
from headstart.select.trial import Contestants, Trial, better, hold_block_trial, question

QUESTION = "backbones: one alone, or all together"
MIXTURE = "a mixture of their heads"


@dataclass(frozen=True, kw_only=True)
class BackboneChoice:
    """Which of several backbones, or all."""

    part: int | None
    """The number of the backbone that is better alone, from 0; None for all together."""
    trials: tuple[Trial, ...]
    """Each backbone alone, in order, and all together; none where nothing could be asked."""
    reason: str

    def as_question(self, names: Sequence[str]) -> dict[str, Any]:
        """The choice as the report shows it.

        Args:
            names: of the backbones.
        """
        return question(QUESTION, TOGETHER if self.part is None else names[self.part], self.reason, self.trials)


def choose_backbone(table: FeatureTable, dataset: Dataset, splits: Splits, plan: FloorPlan) -> BackboneChoice:
    """Ask cross-validation within train which backbone's features tell most, and whether all together tell more.

    Args:
        table: features by several networks.
        dataset: the samples.
        splits: who trains, and the groups that stay together.
        plan: with the seed that deals items to folds.

    Returns:
        The choice, with every trial. Where nothing can be asked, all together.
    """
    items = contestants(dataset, splits.train, splits.groups)
    if items is None:
        return BackboneChoice(part=None, trials=(), reason="the items that train are of one class: nothing can be asked")
    count = len(table.spec.parts)
    names = (*(part.info.name for part in table.spec.parts), TOGETHER)
    tables = (*(table.of_part(index) for index in range(count)), table)

    def hold(given: tuple[str, FeatureTable]) -> Trial:
        return _best_trial(*given, items, splits.train, plan.seed)

    trials = tuple(ordered_map(hold, zip(names, tables, strict=True), num_workers=plan.num_workers))
    best = min(range(count), key=lambda index: trials[index].loss)
    wins, told = better(trials[-1], trials[best])
    return BackboneChoice(part=None if wins else best, trials=trials, reason=f"{told}, out of fold")


def _best_trial(name: str, table: FeatureTable, items: Contestants, ids: Sequence[str], seed: int) -> Trial:
    """The trial of the last blocks' features, or of all blocks' where those are better: as the floor will choose."""
    last, *multi = (hold_block_trial(name, table, block, items, seed=seed, ids=ids) for block in choosable_blocks(table))
    return multi[0] if multi and better(multi[0], last)[0] else last


@dataclass(frozen=True, kw_only=True)
class Footing:
    """A floor, and the features it stands on."""

    floor: Floor
    table: FeatureTable
    """Of all networks, or of the one that was chosen."""
    part: int | None
    """The number of the network that was chosen from several, from 0."""


def find_footing(table: FeatureTable, dataset: Dataset, splits: Splits, labels: tuple[str, ...], plan: FloorPlan) -> Footing:
    """Find the floor; where the features are of several networks, after the choice of one of them, all, or a mixture.

    Args:
        table: features of all items.
        dataset: the samples.
        splits: who trains, and the groups that stay together.
        labels: K labels of the train side, in order.
        plan: how to seek it.

    Returns:
        The floor, with the choice among its questions.
    """
    if not table.spec.parts:
        return Footing(floor=find_floor(table, dataset, splits, labels, plan), table=table, part=None)
    choice = choose_backbone(table, dataset, splits, plan)
    names = [part.info.name for part in table.spec.parts]
    if choice.part is None:
        floor, part = find_floor(table, dataset, splits, labels, plan), None
        asked = choice.as_question(names)
    else:
        mixture = mix_heads(table, dataset, splits, labels, plan, choice.part)
        floor, part = mixture.floor, mixture.part
        kept = MIXTURE if mixture.mixed else TOGETHER if part is None else names[part]
        asked = choice.as_question(names) | {"kept": kept, "reason": f"{choice.reason}; {mixture.told}"}
    chosen = table if part is None else table.of_part(part)
    return Footing(floor=replace(floor, choices=(asked, *floor.choices)), table=chosen, part=part)
