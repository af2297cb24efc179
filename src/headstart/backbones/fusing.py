"""Several backbones by one name, 'A+B': taken apart, and refused where they do not go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.backbones.info import FUSED_BY
from headstart.backbones.source import BackboneSource
from headstart.errors import BackboneError
from headstart.records import Modality

# Names that go on with a path, in which there may be a '+'.
_WITH_PATHS = ("artifact:", "file:", "vectors:", "random:file:", "random:vectors:")


def split_name(name: str) -> tuple[str, ...]:
    """Take the name of several backbones apart; a '+' inside a path that exists parts nothing.

    Args:
        name: as the user gives it.

    Returns:
        The names, one or more.

    Raises:
        BackboneError: if nothing stands before, behind or between the '+'.
    """
    pieces, names = name.split(FUSED_BY), []
    while pieces:
        counts = range(len(pieces), 1, -1)
        count = next((count for count in counts if _is_at_a_path(FUSED_BY.join(pieces[:count]))), 1)
        names.append(FUSED_BY.join(pieces[:count]).strip())
        pieces = pieces[count:]
    if len(names) > 1 and not all(names):
        of_a_path = any(each.startswith(_WITH_PATHS) for each in names)
        raise BackboneError(
            f"backbone {name!r} has a '+' with no name {'before' if not names[0] else 'behind'} it.",
            expected="names with '+' between them, as in efficientnet-lite0+efficientnet-lite1; "
            "a '+' belongs to a path only where that path exists.",
            mend="check the path." if of_a_path else f"--backbone {FUSED_BY.join(filter(None, names)) or 'auto'}",
        )
    return tuple(names)


def _is_at_a_path(name: str) -> bool:
    start = next((start for start in _WITH_PATHS if name.startswith(start)), None)
    if start is None:
        return False
    path = name.removeprefix(start)
    try:
        return any(Path(each).expanduser().exists() for each in {path, path.rpartition("#")[0]} if each)
    except (OSError, ValueError, RuntimeError):  # no path at all
        return False


def fuse_sources(parts: Sequence[BackboneSource], suitable: Callable[[Modality], str]) -> BackboneSource:
    """Make one source of several.

    Args:
        parts: two or more.
        suitable: says which backbones take items of a modality.

    Returns:
        The source, named by their names with '+' between.

    Raises:
        BackboneError: if they take different items, one comes twice, or one is untrained.
    """
    name = FUSED_BY.join(part.name for part in parts)
    modalities = list(dict.fromkeys(part.modality for part in parts))
    if len(modalities) > 1:
        told = ", ".join(f"{part.name} takes {part.modality} items" for part in parts)
        raise BackboneError(
            f"the backbones of {name!r} take different items: {told}.",
            expected="backbones for one kind of items. "
            + " ".join(f"For {modality} items: {suitable(modality)}." for modality in modalities),
            mend="name backbones of the kind that your items are.",
        )
    weights = [part.identity for part in parts]
    twice = [index for index, each in enumerate(weights) if each in weights[:index]]
    if twice:
        kept = FUSED_BY.join(part.name for index, part in enumerate(parts) if index not in twice)
        raise BackboneError(
            f"backbone {parts[twice[0]].name!r} comes twice in {name!r}: the same features again tell nothing new.",
            expected="different backbones.",
            mend=f"--backbone {kept}",
        )
    untrained = [part.name for part in parts if part.kind == "random" and part.changes_path is None]
    if untrained:
        raise BackboneError(
            f"backbone {untrained[0]!r} in {name!r} is untrained, and several backbones together are not trained.",
            expected="pretrained backbones; an untrained one alone, to be trained from scratch.",
            mend=f"--backbone {untrained[0]} --strategy full, or leave it out.",
        )
    return BackboneSource(name=name, kind="fusion", architecture=name, modality=modalities[0], parts=tuple(parts))


def refuse_to_open(source: BackboneSource) -> None:
    """Refuse to open several backbones as one network.

    Args:
        source: any.

    Raises:
        BackboneError: if it is of several.
    """
    if source.parts:
        names = [part.name for part in source.parts]
        raise BackboneError(
            f"{source.name!r} is {len(names)} networks, and cannot be opened as one.",
            expected="one backbone's name.",
            mend=f"open {' and '.join(map(repr, names))} each by itself; `headstart embed` and `fit` take them together.",
        )
