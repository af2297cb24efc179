"""The callbacks of a training, for `headstart.fit(callbacks=[...])`: Keras's names, on torch.

>>> from headstart.callbacks import EarlyStopping, ModelCheckpoint
>>> watching = [EarlyStopping(patience=3), ModelCheckpoint("best.safetensors")]
"""

from headstart.tuning.callbacks.activations import ActivationLogger
from headstart.tuning.callbacks.base import Callback
from headstart.tuning.callbacks.logs import CSVLogger, MLflowLogger, ProgressBar
from headstart.tuning.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
from headstart.tuning.callbacks.stopping import EarlyStopping, TerminateOnNaN, TimeBudget
from headstart.tuning.callbacks.tensor_board import TensorBoard
from headstart.tuning.callbacks.weights import ModelCheckpoint

__all__ = [
    "ActivationLogger",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LearningRateScheduler",
    "MLflowLogger",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "TimeBudget",
]
