"""Every number of a training, in one record that is printed, saved and resumed from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from headstart.errors import SettingError

Averaging = Literal["none", "ema", "swa"]
NormStatistics = Literal["kept", "updated"]
Balance = Literal["none", "weights", "sampler"]


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """How a tail and its head are trained; `select/rules.py` fills it in by the data's size.

    Raises:
        SettingError: if a number cannot work.
    """

    strategy: str
    """'last:K', 'full', 'lora', 'contrastive', or 'head' for a trained head on frozen features."""
    epochs: int
    batch_size: int
    """Samples a step of the optimiser sees; halved in memory, not in effect, where memory runs out."""
    head_rate: float
    """Highest learning rate of the head."""
    backbone_rate: float
    """Highest learning rate of the block next to the head."""
    block_decay: float = 1.0
    """Factor from each block's rate to that of the block before it, in (0, 1]."""
    weight_decay: float = 0.0
    """AdamW's, of matrices only."""
    warm_up: float = 0.1
    """Share of the steps in which the rates rise, in [0, 1)."""
    num_views: int = 0
    """K augmented views of each training item, one an epoch in turn; 0 trains on the items as they are."""
    mirrored: bool = True
    """Whether views may be mirrored left to right; not where a mirror image means something else."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """Alpha of the Beta distribution that two samples are mixed by; 0 mixes none."""
    cutmix: float = 0.0
    """The same for pasting a box of one map into another."""
    l2_sp: float = 0.0
    """Strength of the pull back to the source weights (Li et al. 2018, arXiv 1802.01483)."""
    averaging: Averaging = "none"
    """Weights that are validated and kept: the last ones, or their running ('ema') or late ('swa') average."""
    ema_decay: float = 0.99
    """A step's share of the past in the running average."""
    unfreeze_every: int = 0
    """Epochs between one block and the next beginning to train, from the head backwards; 0 trains all at once."""
    norm_statistics: NormStatistics = "kept"
    """Whether normalisation layers of the tail keep the source's statistics or learn the data's."""
    max_gradient_norm: float = 1.0
    """Gradients longer than this are shortened; 0 leaves them."""
    patience: int = 0
    """Epochs without a lower validation loss after which training ends; 0 never ends early."""
    interpolations: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Shares of the tuned weights against the starting ones, of which validation chooses (Wortsman et al. 2022, WiSE-FT)."""
    balance: Balance = "none"
    """Whether rare classes count more in the loss, or are drawn more often."""
    lora_rank: int = 16
    hidden: tuple[int, ...] = ()
    """Hidden layers of the head; none for a linear one."""
    dropout: float = 0.0
    """Behind each hidden layer."""
    seed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a number is what it is, by its name, for the report."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("num_views", 0), ("unfreeze_every", 0), ("patience", 0)):
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a whole number, {least} or more")
        for name in ("head_rate", "backbone_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise _wrong("learning_rate", value, "a number above 0, such as 0.001")
        if not 0 < self.block_decay <= 1:
            raise _wrong("block_decay", self.block_decay, "a number in (0, 1]")
        for name in ("label_smoothing", "warm_up", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "a number in [0, 1)")

    @property
    def by_pairs(self) -> bool:
        """Whether features are learned from pairs of samples, and no head with them."""
        return self.strategy == "contrastive"

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def _wrong(name: str, value: object, expected: str) -> SettingError:
    option = "--" + name.replace("_", "-")
    return SettingError(f"{name} is {value!r}.", expected=f"{expected}.", mend=f"leave {option} out: a rule chooses it.")
