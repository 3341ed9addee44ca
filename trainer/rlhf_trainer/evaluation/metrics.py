"""From answers to the metrics of api.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import Against
from rlhf_api.stage import EvaluateWork
from rlhf_trainer.runtime.result import metric

from . import stats
from .answers import Answer, Compare, in_order_of, judge_score_of, of_validation
from .divergence import Divergence


def evaluation_metrics(
    work: EvaluateWork,
    answers: Sequence[Answer],
    initial: Sequence[Answer] | None,
    previous: Sequence[Answer] | None,
    kl: Divergence,
    compare: Compare | None = None,
) -> dict[Metric, MetricValue]:
    """Over the validation prompts; test prompts are for the report alone. compare: of a judge that gives no points.

    Its answers' scores are how probable it is that each is better than pi_0's: relative, so that they have no mean among metrics,
    nor have those of such a reward.
    """
    own = of_validation(answers)
    lengths = [float(len(a.completion_ids)) for a in own]
    metrics = {
        Metric.MEAN_LENGTH: stats.mean_with_interval(lengths),
        Metric.CLIPPED_SHARE: metric(sum(a.finish_reason == "length" for a in own) / len(own)),
        Metric.DISTINCT_2: metric(distinct_2([a.completion_ids for a in own])),
        Metric.KL_TO_INITIAL: stats.mean_with_interval(kl.log_ratios),
        Metric.KL_TO_INITIAL_PER_TOKEN: stats.ratio_with_interval(kl.log_ratios, kl.tokens),
        Metric.ENTROPY_PER_TOKEN: stats.ratio_with_interval(kl.entropies, kl.tokens),
    }
    if compare is None:
        metrics[Metric.JUDGE_MEAN] = stats.mean_with_interval([judge_score_of(a) for a in own])
    if not work.reward.type.compares:
        metrics[Metric.REWARD_MEAN] = stats.mean_with_interval([a.reward_score or 0.0 for a in own])
    if work.iterate == 0:
        return metrics | {Metric.WIN_RATE_VS_INITIAL: metric(0.5), Metric.MEAN_LENGTH_RATIO_VS_INITIAL: metric(1.0)}
    if initial is not None:
        first = in_order_of(own, initial)
        first_lengths = [float(len(a.completion_ids)) for a in first]
        metrics[Metric.MEAN_LENGTH_RATIO_VS_INITIAL] = stats.ratio_with_interval(lengths, first_lengths)
        if Against.INITIAL in work.against:
            outcomes = _outcomes(own, first) if compare is None else _wins([judge_score_of(a) for a in own])
            metrics[Metric.WIN_RATE_VS_INITIAL] = stats.mean_with_interval(outcomes)
            metrics[Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL] = stats.length_adjusted_win_rate(outcomes, lengths, first_lengths)
    if previous is not None and Against.PREVIOUS in work.against:
        before = in_order_of(own, previous)
        outcomes = _outcomes(own, before) if compare is None else _wins(compare(list(zip(own, before, strict=True))))
        metrics[Metric.WIN_RATE_VS_PREVIOUS] = stats.mean_with_interval(outcomes)
    return metrics


def distinct_2(sequences: Sequence[Sequence[int]]) -> float:
    """Distinct bigrams of ids divided by bigrams, over all sequences together."""
    bigrams = [pair for sequence in sequences for pair in pairwise(sequence)]
    return len(set(bigrams)) / max(1, len(bigrams))


def _wins(better: Sequence[float]) -> list[float]:
    """1, ½ or 0 a prompt, by how probable it is that ours is better."""
    return stats.wins(better, [0.5] * len(better))


def _outcomes(ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[float]:
    """1, ½ or 0 a prompt. Equal answers tie: they were judged in different stages, and the last bits of a score are its batch's."""
    scores = [(0.0, 0.0) if a.text == b.text else (judge_score_of(a), judge_score_of(b)) for a, b in zip(ours, theirs, strict=True)]
    return stats.wins([a for a, _ in scores], [b for _, b in scores])
