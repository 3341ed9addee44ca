"""Every metric that a gate, a selection, a status or a report may name, with its unit and its definition."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from .base import Model

_Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Metric(StrEnum):
    """One word for one quantity, everywhere. `unit` and `definition` are attributes of each member."""

    unit: str
    definition: str

    def __new__(cls, value: str, unit: str, definition: str) -> Metric:
        member = str.__new__(cls, value)
        member._value_ = value
        member.unit = unit
        member.definition = definition
        return member

    WIN_RATE_VS_INITIAL = (
        "winRateVsInitial",
        "share",
        (
            "Share of validation prompts on which the judge prefers this iterate's response to pi_0's; a tie counts one half. "
            "95 % interval by paired bootstrap over prompts."
        ),
    )
    WIN_RATE_VS_PREVIOUS = (
        "winRateVsPrevious",
        "share",
        "The same against the iterate that the iteration started from.",
    )
    LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL = (
        "lengthAdjustedWinRateVsInitial",
        "share",
        (
            "winRateVsInitial with the length difference regressed out: logistic in tanh of the standardised difference, "
            "L2 by cross-validation, bootstrap interval."
        ),
    )
    REWARD_MEAN = (
        "rewardMean",
        "score",
        "Mean score of the training reward on the iterate's validation samples; one that compares has none.",
    )
    JUDGE_MEAN = ("judgeMean", "score", "Mean score of the judge on the iterate's validation samples; one that compares has none.")
    KL_TO_INITIAL = (
        "klToInitial",
        "nats/sequence",
        (
            "E over y ~ pi_t of sum_j log pi_t(y_j) - log pi_0(y_j); both sides by one fp32 log-softmax forward of the "
            "trainer, responses sampled at temperature 1 without top-p or top-k. Bootstrap over prompts."
        ),
    )
    KL_TO_INITIAL_PER_TOKEN = (
        "klToInitialPerToken",
        "nats/token",
        "Sum over samples of the sequence sums of klToInitial, divided by the sum of response tokens.",
    )
    MEAN_LENGTH = ("meanLength", "tokens", "Mean response tokens of the validation samples, EOS counted.")
    MEAN_LENGTH_RATIO_VS_INITIAL = ("meanLengthRatioVsInitial", "ratio", "meanLength divided by pi_0's meanLength.")
    ENTROPY_PER_TOKEN = ("entropyPerToken", "nats/token", "Mean entropy of the next-token distribution on the validation samples.")
    CLIPPED_SHARE = ("clippedShare", "share", "Share of the validation samples that were cut at maxNewTokens.")
    DISTINCT_2 = ("distinct2", "share", "Distinct bigrams divided by bigrams over the validation samples.")
    TRAIN_LOSS = ("trainLoss", "nats", "The loss, as TRL's `loss`, over the last tenth of the steps.")
    CHOSEN_REWARD = ("chosenReward", "nats", "TRL's rewards/chosen: beta (log pi - log pi_ref) of the chosen responses.")
    REJECTED_REWARD = ("rejectedReward", "nats", "TRL's rewards/rejected.")
    REWARD_MARGIN = ("rewardMargin", "nats", "TRL's rewards/margins: chosenReward - rejectedReward.")
    REWARD_ACCURACY = ("rewardAccuracy", "share", "TRL's rewards/accuracies: share of pairs whose margin is positive.")
    HELD_OUT_REWARD_ACCURACY = (
        "heldOutRewardAccuracy",
        "share",
        (
            "Share of held-out pairs whose chosen response the reward model or judge that the run trained scores higher; a tie "
            "counts one half. 95 % interval by bootstrap over prompts."
        ),
    )
    GRAD_NORM = ("gradNorm", "norm", "TRL's grad_norm: global L2 norm of the gradient before clipping.")
    YIELD = (
        "yield",
        "share",
        "Prompts with at least one kept pair divided by prompts sampled, but for those that minRewardStd leaves out.",
    )
    PAIRS = ("pairs", "count", "Kept preference pairs.")
    GPU_SECONDS = ("gpuSeconds", "s", "GPUs held times seconds held, by stage.")
    QUEUE_SECONDS = ("queueSeconds", "s", "Seconds from creation to admission and start, by stage.")
    WALL_SECONDS = ("wallSeconds", "s", "Seconds from start to end, by stage.")
    LOST_GPU_SECONDS = ("lostGpuSeconds", "s", "gpuSeconds of attempts that did not finish, by stage.")


class MetricValue(Model):
    """A figure with its 95 % interval, where it has one."""

    value: float
    """The figure, in the metric's unit."""
    lower: float | None = None
    """Lower end of the 95 % interval."""
    upper: float | None = None
    """Upper end of the 95 % interval."""


class BenchmarkMetric(Model):
    """A figure of lm-evaluation-harness: none of ours, so its task and its metric have the names that they have there."""

    task: _Name
    """An entry of evaluate.lmEval.tasks; of a task file, the name that it gives its task."""
    metric: _Name
    """As the report calls it: acc, exact_match/strict-match (behind the slash, the filter where it is not `none`)."""

    def __str__(self) -> str:
        return f"{self.metric} of {self.task}"


class BenchmarkValue(MetricValue):
    """What an iterate has of a benchmark; the interval is 1.96 standard errors to both sides."""

    task: _Name
    """The task."""
    metric: _Name
    """Its metric."""
    less_is_better: bool = False
    """As lm-evaluation-harness says of the metric."""
