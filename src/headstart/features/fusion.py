"""Several networks' features of the same items, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.backbones.info import fuse_infos
from headstart.features.prefix import Prefix, PrefixSpec
from headstart.features.table import FeatureTable
from headstart.preprocess.fusion import FusedPreprocess
from headstart.preprocess.recipe import Arrays, Preprocess
from headstart.records import Sample


class FusedPrefix:
    """Several compiled prefixes: each takes its own array, and their features lie side by side."""

    def __init__(self, parts: Sequence[Prefix]) -> None:
        self.parts = tuple(parts)
        self.spec = fuse_specs([part.spec for part in parts])
        self.num_workers = min(part.num_workers for part in parts)
        self.batch_size = min(part.batch_size for part in parts)
        self.precision = ", ".join(dict.fromkeys(part.precision for part in parts))
        self.model_path: Path | None = None
        """The parts have files of their own."""

    def __call__(self, batch: Arrays) -> np.ndarray:
        """Run every part: a tuple of batches as the preprocess collates them to (B, `spec.width`) float32."""
        return np.concatenate([part(array) for part, array in zip(self.parts, batch, strict=True)], axis=1)

    def with_preprocess(self, preprocess: Preprocess) -> tuple[tuple[Prefix, Preprocess], ...]:
        """Each part with its own recipe.

        Args:
            preprocess: of several networks, in the same order.
        """
        assert isinstance(preprocess, FusedPreprocess), "several networks have a recipe each"
        return tuple(zip(self.parts, preprocess.parts, strict=True))


def parts_of(prefix: Prefix) -> tuple[Prefix, ...]:
    """The networks that a prefix is made of: itself, where it is one."""
    return prefix.parts if isinstance(prefix, FusedPrefix) else (prefix,)


def fuse_specs(parts: Sequence[PrefixSpec]) -> PrefixSpec:
    """What several compiled prefixes are together.

    Args:
        parts: two or more, of one modality, none of them cut.

    Returns:
        Their blocks by their part's name, a slash and their own.
    """
    info = fuse_infos([part.info for part in parts])
    spec = PrefixSpec(
        info=info,
        preprocess=FusedPreprocess(
            names=tuple(part.info.name for part in parts), parts=tuple(part.preprocess for part in parts)
        ),
        layout=(),
        relative_error=max((part.relative_error for part in parts if part.relative_error is not None), default=None),
        why_torch="; ".join(f"{part.info.name}: {part.why_torch}" for part in parts if part.why_torch),
        parts=tuple(parts),
    )
    layout = tuple(
        replace(block, name=f"{part.info.name}/{block.name}", start=start + block.start)
        for part, start in zip(parts, spec.starts, strict=True)
        for block in part.layout
    )
    return replace(spec, layout=layout)


def join_tables(
    prefix: FusedPrefix, preprocess: Preprocess, tables: Sequence[FeatureTable], samples: Sequence[Sample]
) -> FeatureTable:
    """Put the features by several networks side by side.

    Args:
        prefix: of the networks.
        preprocess: of the networks.
        tables: each network's features of the samples, with the same views.
        samples: that were asked for, in the order of the table's rows.

    Returns:
        The features of the items that every network could be given; the others are failures.
    """
    told = [{id_: (table.spec.info.name, reason) for id_, reason in table.failures.items()} for table in tables]
    failures: dict[str, str] = {}
    for id_ in dict.fromkeys(id_ for table in tables for id_ in table.failures):
        names, reasons = zip(*(each[id_] for each in told if id_ in each), strict=True)
        failures[id_] = reasons[0] if len(names) == len(tables) else f"{reasons[0]} (for {', '.join(names)})"
    ids = tuple(sample.id for sample in samples if sample.id not in failures)
    rows = [_rows(table, ids) for table in tables]
    hits = min(table.hits for table in tables)
    return FeatureTable(
        ids=ids,
        vectors=np.concatenate([table.vectors[row] for table, row in zip(tables, rows, strict=True)], axis=2),
        views=tables[0].views,
        spec=prefix.spec,
        preprocess=preprocess,
        hashes={id_: value for table in reversed(tables) for id_, value in table.hashes.items()},
        failures=failures,
        mends={id_: mend for table in reversed(tables) for id_, mend in table.mends.items()},
        hits=hits,
        misses=max(table.misses for table in tables),
        seconds=sum(table.seconds for table in tables),
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
    )


def _rows(table: FeatureTable, ids: tuple[str, ...]) -> slice | list[int]:
    """Where items stand in a table; a slice where they are all of it in its own order, which needs no copy."""
    return slice(None) if table.ids == ids else [table.rows[id_] for id_ in ids]
