"""Exact heads on features: solved, not trained; numpy alone.

The public names load when first asked for, so that prediction, which needs `LinearHead` only, reads no solver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.heads.choose import Candidate, ChoicePlan, HeadChoice, choose_head
    from headstart.heads.folds import make_folds
    from headstart.heads.linear import LinearHead
    from headstart.heads.logistic import cross_validate_logistic, fit_logistic, fit_logistic_multilabel
    from headstart.heads.means import fit_lda, fit_nearest_mean
    from headstart.heads.ridge import RidgeFit, balanced_class_weights, fit_ridge, fit_ridge_multilabel, fit_ridge_value
    from headstart.heads.temperature import fit_temperature

__all__ = [
    "Candidate",
    "ChoicePlan",
    "HeadChoice",
    "LinearHead",
    "RidgeFit",
    "balanced_class_weights",
    "choose_head",
    "cross_validate_logistic",
    "fit_lda",
    "fit_logistic",
    "fit_logistic_multilabel",
    "fit_nearest_mean",
    "fit_ridge",
    "fit_ridge_multilabel",
    "fit_ridge_value",
    "fit_temperature",
    "make_folds",
]

_HOMES = {
    "choose": ("Candidate", "ChoicePlan", "HeadChoice", "choose_head"),
    "folds": ("make_folds",),
    "linear": ("LinearHead",),
    "logistic": ("cross_validate_logistic", "fit_logistic", "fit_logistic_multilabel"),
    "means": ("fit_lda", "fit_nearest_mean"),
    "ridge": ("RidgeFit", "balanced_class_weights", "fit_ridge", "fit_ridge_multilabel", "fit_ridge_value"),
    "temperature": ("fit_temperature",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"headstart.heads.{module}"), name)
    raise AttributeError(f"module 'headstart.heads' has no attribute {name!r}; it has {', '.join(__all__)}")
