"""Reading a recipe back from its JSON, strictly: each setting once, none unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from headstart.errors import ArtifactError

MEND = "use the file as headstart wrote it, or a headstart as new as the one that wrote it."


def read_settings(spec: Mapping[str, Any], recipe: type, *, kind: str, rules: int) -> dict[str, Any]:
    """The settings of a recipe, less its kind and rules.

    Args:
        spec: the values of one JSON object.
        recipe: the dataclass that takes them.
        kind: that `spec` must name.
        rules: whose number it must have.

    Returns:
        A value for each field of the dataclass, as it stands in the JSON.

    Raises:
        ArtifactError: if it is of another kind or other rules, or has a missing or unknown setting.
    """
    names = field_names(recipe)
    settings = dict(spec)
    if (settings.pop("kind", None), settings.pop("rules", None)) != (kind, rules) or set(settings) != names:
        wrong = ", ".join(sorted(map(str, set(settings) ^ names))) or "none missing or unknown"
        raise ArtifactError(
            f"this is no {kind} preprocess of rules {rules}; settings missing or unknown: {wrong}.",
            expected=expected_of(recipe),
            mend=MEND,
        )
    return settings


def cannot_work(recipe: type, kind: str, problem: Exception) -> ArtifactError:
    """The error of a recipe whose settings are all there, and one of which is wrong.

    Args:
        recipe: the dataclass.
        kind: of the recipe.
        problem: what the dataclass said of it.
    """
    return ArtifactError(f"the {kind} preprocess cannot work: {problem}", expected=expected_of(recipe), mend=MEND)


def field_names(recipe: type) -> set[str]:
    """Names of a dataclass's fields."""
    return {field.name for field in dataclasses.fields(recipe)}


def expected_of(recipe: type) -> str:
    """What a recipe's JSON must be, in words."""
    return f"an object with kind, rules, {', '.join(sorted(field_names(recipe)))}."
