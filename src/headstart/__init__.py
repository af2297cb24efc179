"""Headstart: labelled items in; an adapted model, honest evidence and an artifact that predicts without torch out.

The public names load when they are first used, so that `import headstart` is quick, silent, and free of training code.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.api.export import export
    from headstart.api.fit import fit
    from headstart.api.opening import load
    from headstart.api.score import evaluate
    from headstart.api.use import check, embed
    from headstart.errors import HeadstartError
    from headstart.model.model import Model
    from headstart.records import Dataset, Finding, Prediction, Sample
    from headstart.tuning.callbacks.base import Callback

_PLACES = {
    "Callback": "headstart.tuning.callbacks.base",
    "Dataset": "headstart.records",
    "Finding": "headstart.records",
    "HeadstartError": "headstart.errors",
    "Model": "headstart.model.model",
    "Prediction": "headstart.records",
    "Sample": "headstart.records",
    "check": "headstart.api.use",
    "embed": "headstart.api.use",
    "evaluate": "headstart.api.score",
    "export": "headstart.api.export",
    "fit": "headstart.api.fit",
    "load": "headstart.api.opening",
}

# Read by libraries when they are loaded, and by every process that this one starts: ONNX Runtime from 1.32 on, the hub's
# client, and whoever keeps to the common convention. A value that the user has set stays.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    if not os.environ.get(_name):
        os.environ[_name] = "1"

# Modules that `import headstart` alone gives access to.
_MODULES = ("callbacks",)

__all__ = [
    "Callback",
    "Dataset",
    "Finding",
    "HeadstartError",
    "Model",
    "Prediction",
    "Sample",
    "check",
    "embed",
    "evaluate",
    "export",
    "fit",
    "load",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name in _MODULES:
        return import_module(f"headstart.{name}")
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
