"""One door to every saved model: one that predicts, or one that writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.artifact.store import load as load_predicting
from headstart.artifact.store import read_manifest
from headstart.model.model import Model
from headstart.runtime import require_packages

if TYPE_CHECKING:
    from headstart.language.model import LanguageModel


def require_writing() -> None:
    """Refuse, in words, to write without what that needs.

    Raises:
        MissingPackageError: if torch or transformers is not installed.
    """
    require_packages("torch", "transformers", purpose="a language model")


def load(path: str | Path) -> Model | LanguageModel:
    """Open a saved model: compare checksums, replay the self-test.

    Args:
        path: the folder `fit` made.

    Returns:
        A model that predicts, without torch; or one that writes, which needs torch and transformers.

    Raises:
        MissingPackageError: if it writes, and what that needs is not installed.
        ArtifactError: if it is no saved model, was changed, is of a newer format, or answers otherwise here.
    """
    if read_manifest(Path(path)).task != "generate":
        return load_predicting(path)
    require_writing()
    from headstart.language.saving import open_model

    return open_model(path)
