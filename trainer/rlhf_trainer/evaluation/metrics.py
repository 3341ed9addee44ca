"""From answers to the metrics of api.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import Against
from rlhf_api.stage import EvaluateWork
from rlhf_trainer.runtime.result import metric

from . import stats
from .answers import Answer, in_order_of, judge_score_of, of_validation
from .divergence import Divergence


def evaluation_metrics(
    work: EvaluateWork,
    answers: Sequence[Answer],
    initial: Sequence[Answer] | None,
    previous: Sequence[Answer] | None,
    kl: Divergence,
) -> dict[Metric, MetricValue]:
    """Over the validation prompts; test prompts are for the report alone."""
    own = of_validation(answers)
    lengths = [float(len(a.completion_ids)) for a in own]
    metrics = {
        Metric.JUDGE_MEAN: stats.mean_with_interval([judge_score_of(a) for a in own]),
        Metric.REWARD_MEAN: stats.mean_with_interval([a.reward_score or 0.0 for a in own]),
        Metric.MEAN_LENGTH: stats.mean_with_interval(lengths),
        Metric.CLIPPED_SHARE: metric(sum(a.finish_reason == "length" for a in own) / len(own)),
        Metric.DISTINCT_2: metric(distinct_2([a.completion_ids for a in own])),
        Metric.KL_TO_INITIAL: stats.mean_with_interval(kl.log_ratios),
        Metric.KL_TO_INITIAL_PER_TOKEN: stats.ratio_with_interval(kl.log_ratios, kl.tokens),
        Metric.ENTROPY_PER_TOKEN: stats.ratio_with_interval(kl.entropies, kl.tokens),
    }
    if work.iterate == 0:
        return metrics | {Metric.WIN_RATE_VS_INITIAL: metric(0.5), Metric.MEAN_LENGTH_RATIO_VS_INITIAL: metric(1.0)}
    if initial is not None:
        first = in_order_of(own, initial)
        first_lengths = [float(len(a.completion_ids)) for a in first]
        metrics[Metric.MEAN_LENGTH_RATIO_VS_INITIAL] = stats.ratio_with_interval(lengths, first_lengths)
        if Against.INITIAL in work.against:
            outcomes = _outcomes(own, first)
            metrics[Metric.WIN_RATE_VS_INITIAL] = stats.mean_with_interval(outcomes)
            metrics[Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL] = stats.length_adjusted_win_rate(outcomes, lengths, first_lengths)
    if previous is not None and Against.PREVIOUS in work.against:
        outcomes = _outcomes(own, in_order_of(own, previous))
        metrics[Metric.WIN_RATE_VS_PREVIOUS] = stats.mean_with_interval(outcomes)
    return metrics


def distinct_2(sequences: Sequence[Sequence[int]]) -> float:
    """Distinct bigrams of ids divided by bigrams, over all sequences together."""
    bigrams = [pair for sequence in sequences for pair in pairwise(sequence)]
    return len(set(bigrams)) / max(1, len(bigrams))


def _outcomes(ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[float]:
    """1, ½ or 0 a prompt. Equal answers tie: they were judged in different stages, and the last bits of a score are its batch's."""
    scores = [(0.0, 0.0) if a.text == b.text else (judge_score_of(a), judge_score_of(b)) for a, b in zip(ours, theirs, strict=True)]
    return stats.wins([a for a, _ in scores], [b for _, b in scores])
