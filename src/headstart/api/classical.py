"""The classical features of texts: whether they are asked for, and counting them."""

from __future__ import annotations

from dataclasses import replace

from headstart.config import FitSettings
from headstart.errors import SettingError
from headstart.features import FeatureTable
from headstart.heads.term_counts import count_terms
from headstart.records import Dataset, Modality
from headstart.runtime import require_packages


def check_classical(classical: str, modality: Modality) -> None:
    """Refuse the option where there are no texts.

    Args:
        classical: 'auto' or 'none'.
        modality: of the data.

    Raises:
        SettingError: if it was set, and the items are no texts.
    """
    if classical != "auto" and modality != "text":
        raise SettingError(
            f"classical is {classical!r}, and the items are of modality {modality}.",
            expected="texts: words and pieces of words are counted in nothing else.",
            mend="leave --classical out.",
        )


def add_terms(table: FeatureTable, dataset: Dataset, settings: FitSettings) -> FeatureTable:
    """Count the terms of texts, unless they are to be left out or a head with hidden layers is asked for, which takes none.

    Args:
        table: features of the readable items.
        dataset: the samples.
        settings: of the fit.

    Returns:
        The table, with the terms of its items where they are texts.

    Raises:
        MissingPackageError: if scipy is not installed.
    """
    preprocess = table.preprocess
    if preprocess.modality != "text" or settings.classical == "none" or settings.head == "mlp":
        return table
    require_packages("scipy", purpose="counting the words of texts (--classical none does without)")
    return replace(
        table, terms=count_terms((id_, str(preprocess.load(dataset.by_id[id_].item, name=id_))) for id_ in table.ids)
    )
