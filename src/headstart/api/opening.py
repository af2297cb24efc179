"""One door to every saved model: one that predicts, or one that writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.artifact.store import load as load_predicting
from headstart.artifact.store import read_manifest
from headstart.model.model import Model

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel


def load(path: str | Path) -> Model | LanguageModel:
    """Open a saved model: compare checksums, replay the self-test.

    Args:
        path: the folder `fit` made.

    Returns:
        A model that predicts, without torch; or one that writes, which needs torch and transformers.

    Raises:
        ArtifactError: if it is no saved model, was changed, is of a newer format, or answers otherwise here.
    """
    if read_manifest(Path(path)).task != "generate":
        return load_predicting(path)
    from headstart.language.saving import open_model

    return open_model(path)
