"""`spec.sft`, `spec.label`, `spec.reference`, `spec.train`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rlhf_api.base import Count, Model, NonNegative, Positive, Share, unique_by

from .compute import Compute, DpoOptimization, Pod, Queue, SftOptimization
from .data import DataSource
from .model import ModelRef


class Sft(Model):
    """Supervised fine-tuning; loss on assistant tokens only."""

    data: Annotated[list[DataSource], Field(min_length=1, max_length=32), unique_by("name")]
    """Demonstrations: conversations, of which the assistant's tokens are learnt."""
    optimization: SftOptimization = SftOptimization()
    """AdamW and its schedule; the batch counts conversations."""
    max_length: Count = 8192
    """Longest row, in tokens."""
    compute: Compute = Compute()
    """What it runs on."""


class PairingStrategy(StrEnum):
    BEST_WORST = "BestWorst"
    BEST_RANDOM = "BestRandom"
    BEST_SECOND = "BestSecond"
    ALL_ABOVE_MARGIN = "AllAboveMargin"
    MEAN_SIGMA = "MeanSigma"


class LengthStopped(StrEnum):
    """What becomes of responses that were cut at maxNewTokens."""

    KEEP = "Keep"
    REJECTED_ONLY = "RejectedOnly"
    DROP = "Drop"


class Pairing(Model):
    """How scored completions become preference pairs. A tie never makes a pair."""

    strategy: PairingStrategy = PairingStrategy.BEST_WORST
    """Which completions of a prompt become pairs."""
    min_margin: NonNegative = 0.0
    """The score difference must be above it."""
    min_reward_std: NonNegative | None = None
    """Only prompts the standard deviation of whose scores is above it give pairs; absent: all."""
    length_stopped: LengthStopped = LengthStopped.KEEP
    """What becomes of responses that were cut at maxNewTokens."""


class Label(Model):
    length_penalty_per_character: NonNegative = 0.0
    """Subtracted from the score; 0.001 is the paper's "concise"."""
    pairing: Pairing = Pairing()
    """How scored completions become pairs."""
    min_yield: Share = 0.5
    """A smaller yield fails the stage, with counts by reason."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Parts into which the samples are split."""
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    """Shards at work at the same time."""
    pod: Pod | None = None
    queue: Queue | None = None


class ReferenceType(StrEnum):
    INITIAL = "Initial"
    PREVIOUS = "Previous"
    MODEL = "Model"


class Reference(Model):
    """Whose log-probs the loss compares with; computed once and cached."""

    type: ReferenceType = ReferenceType.INITIAL
    """Initial: pi_0, always. Previous: the iterate that the iteration starts from. Model: `model`."""
    model: ModelRef | None = None
    """The reference, with type Model."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Parts into which the pairs are split."""
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    """Shards at work at the same time."""
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
    SPPO = "SPPO"
    REBEL = "REBEL"

    @property
    def needs_reference(self) -> bool:
        return self not in (LossType.SIMPO, LossType.CPO)

    @property
    def needs_scores(self) -> bool:
        return self is LossType.REBEL


class Weighting(StrEnum):
    """Pairs by how probable the policy finds them now (arXiv 2406.11827)."""

    WPO = "WPO"
    WPO_CLAMPED = "WPOClamped"


class IpoAverage(StrEnum):
    TOKEN = "Token"
    SUM = "Sum"


class Loss(Model):
    type: LossType = LossType.SIGMOID
    """Which preference loss."""
    beta: Positive = 0.1
    """How strongly the loss holds the policy near the reference (DPO's beta)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] | None = None
    """CDPO and Robust; absent there: 0.1."""
    average: IpoAverage | None = None
    """IPO: log-ratios per token (as TRL, the default) or summed."""
    gamma: NonNegative | None = None
    """SimPO's target margin; absent there: 0.5."""
    length_normalized: bool | None = None
    """Sigmoid: log-ratios per token, not summed."""
    length_margin: NonNegative | None = None
    """Sigmoid: added to the margin for each token that chosen is longer."""
    weighting: Weighting | None = None
    """Weighs each pair; WPOClamped by at most 1, as its authors' code."""
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
    """The preference loss."""
    start: Start = Start.LATEST
    """The iterate whose weights training starts from."""
    warm_start: WarmStart = WarmStart.MASTER
    """Go on from the fp32 master weights of the starting iterate, or from its export."""
    data: TrainData = TrainData()
    """Which pairs iteration t learns from."""
    optimization: DpoOptimization = DpoOptimization()
    """AdamW and its schedule, new in each iteration; the batch counts pairs."""
    max_length: Count = 2048
    """Longest prompt and response together, in tokens."""
    max_prompt_length: Count = 1000
    """Longest prompt, in tokens; less than maxLength."""
    overlong: Overlong = Overlong.TRUNCATE
    """Responses beyond maxLength; counted, and cut text never gets an EOS."""
    token_budget: Count | None = None
    """Tokens of one packed micro-batch; absent: chosen by the trainer."""
    checkpoint_every_steps: Count = 50
    """Optimizer steps between two training checkpoints."""
    compute: Compute = Compute()
    """What it runs on."""
