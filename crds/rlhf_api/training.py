"""`spec.sft`, `spec.label`, `spec.reference`, `spec.train`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .base import Count, Model, NonNegative, Positive, Share, unique_by
from .compute import Compute, DpoOptimization, Pod, Queue, SftOptimization
from .data import DataSource
from .model import ModelRef


class Sft(Model):
    """Supervised fine-tuning; loss on assistant tokens only."""

    data: Annotated[list[DataSource], Field(min_length=1, max_length=32), unique_by("name")]
    optimization: SftOptimization = SftOptimization()
    max_length: Count = 8192
    compute: Compute = Compute()


class PairingStrategy(StrEnum):
    BEST_WORST = "BestWorst"
    BEST_RANDOM = "BestRandom"
    BEST_SECOND = "BestSecond"
    ALL_ABOVE_MARGIN = "AllAboveMargin"


class LengthStopped(StrEnum):
    """What becomes of responses that were cut at maxNewTokens."""

    KEEP = "Keep"
    REJECTED_ONLY = "RejectedOnly"
    DROP = "Drop"


class Pairing(Model):
    """How scored completions become preference pairs. A tie never makes a pair."""

    strategy: PairingStrategy = PairingStrategy.BEST_WORST
    min_margin: NonNegative = 0.0
    """The score difference must be above it."""
    length_stopped: LengthStopped = LengthStopped.KEEP


class Label(Model):
    length_penalty_per_character: NonNegative = 0.0
    """Subtracted from the score; 0.001 is the paper's "concise"."""
    pairing: Pairing = Pairing()
    min_yield: Share = 0.5
    """A smaller yield fails the stage, with counts by reason."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    pod: Pod | None = None
    queue: Queue | None = None


class ReferenceType(StrEnum):
    INITIAL = "Initial"
    PREVIOUS = "Previous"
    MODEL = "Model"


class Reference(Model):
    """Whose log-probs the loss compares with; computed once and cached."""

    type: ReferenceType = ReferenceType.INITIAL
    model: ModelRef | None = None
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    pod: Pod | None = None
    queue: Queue | None = None


class LossType(StrEnum):
    """`needs_reference` is False for the losses without a reference stage."""

    SIGMOID = "Sigmoid"
    CDPO = "CDPO"
    ROBUST = "Robust"
    IPO = "IPO"
    HINGE = "Hinge"
    SIMPO = "SimPO"
    CPO = "CPO"

    @property
    def needs_reference(self) -> bool:
        return self not in (LossType.SIMPO, LossType.CPO)


class IpoAverage(StrEnum):
    TOKEN = "Token"
    SUM = "Sum"


class Loss(Model):
    type: LossType = LossType.SIGMOID
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] | None = None
    """CDPO and Robust; absent there: 0.1."""
    average: IpoAverage | None = None
    """IPO: log-ratios per token (as TRL, the default) or summed."""
    gamma: NonNegative | None = None
    """SimPO's target margin; absent there: 0.5."""
    nll_weight: NonNegative = 0.0
    """Weight of the negative log-likelihood per token of the chosen response."""


class Start(StrEnum):
    LATEST = "Latest"
    INITIAL = "Initial"
    BEST = "Best"


class WarmStart(StrEnum):
    MASTER = "Master"
    EXPORTED = "Exported"


class Replay(StrEnum):
    LATEST = "Latest"
    ALL = "All"
    WINDOW = "Window"


class TrainData(Model):
    replay: Replay = Replay.LATEST
    """Which of D_1..D_t iteration t reads."""
    window: Annotated[int, Field(ge=1, le=50)] | None = None
    """With Window: the newest so many."""
    offline: Annotated[list[DataSource], Field(max_length=32), unique_by("name")] = []
    """D_off: preference sources beside the run's own."""


class Overlong(StrEnum):
    TRUNCATE = "Truncate"
    DROP = "Drop"


class Train(Model):
    loss: Loss = Loss()
    start: Start = Start.LATEST
    warm_start: WarmStart = WarmStart.MASTER
    """Go on from the fp32 master weights of the starting iterate, or from its export."""
    data: TrainData = TrainData()
    optimization: DpoOptimization = DpoOptimization()
    max_length: Count = 2048
    max_prompt_length: Count = 1000
    overlong: Overlong = Overlong.TRUNCATE
    """Responses beyond maxLength; counted, and cut text never gets an EOS."""
    token_budget: Count | None = None
    """Tokens of one packed micro-batch; absent: chosen by the trainer."""
    checkpoint_every_steps: Count = 50
    compute: Compute = Compute()
