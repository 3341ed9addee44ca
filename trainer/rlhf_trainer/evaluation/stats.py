"""Figures with their intervals: bootstrap over prompts, 2,000 resamples, percentiles, a fixed seed (equal data, equal bounds)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf_api.metrics import MetricValue
from rlhf_trainer.runtime.result import metric

RESAMPLES = 2000
Floats = NDArray[np.float64]


def mean_with_interval(values: Sequence[float]) -> MetricValue:
    """Mean and its 95 % interval. values: one a prompt."""
    array = np.asarray(values, dtype=np.float64)
    means = array[_resamples(len(array))].mean(axis=1)
    return _interval(float(array.mean()), means)


def ratio_with_interval(numerators: Sequence[float], denominators: Sequence[float]) -> MetricValue:
    """sum(numerators) / sum(denominators), pairs resampled together."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    index = _resamples(len(above))
    ratios = above[index].sum(axis=1) / np.maximum(below[index].sum(axis=1), 1e-12)
    return _interval(float(above.sum() / max(below.sum(), 1e-12)), ratios)


def share_with_interval(outcomes: Sequence[float], prompts: Sequence[int]) -> MetricValue:
    """Mean of the outcomes, one a pair; whole prompts are resampled, each with all its pairs. Memory is that of one resample."""
    _, place = np.unique(np.asarray(prompts), return_inverse=True)
    won, pairs = np.bincount(place, weights=np.asarray(outcomes, dtype=np.float64)), np.bincount(place)
    drawn = np.random.default_rng(0)
    shares = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        index = drawn.integers(0, len(pairs), len(pairs))
        shares[number] = won[index].sum() / pairs[index].sum()
    return _interval(float(won.sum() / pairs.sum()), shares)


def difference_with_interval(ours: Sequence[float], theirs: Sequence[float]) -> MetricValue:
    """Mean of the paired differences: the same prompts in the same order."""
    return mean_with_interval((np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)).tolist())


def wins(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """1 where ours is better, 0 where theirs is, ½ for a tie."""
    return [1.0 if a > b else 0.0 if a < b else 0.5 for a, b in zip(ours, theirs, strict=True)]


def length_adjusted_win_rate(
    outcomes: Sequence[float], our_lengths: Sequence[float], their_lengths: Sequence[float]
) -> MetricValue:
    """The win rate at equal lengths: sigmoid(theta), where logit P(win) = theta + phi tanh(difference / its deviation).

    After arXiv 2404.04475, section 3, without its terms for models and instructions: phi is under an L2 penalty chosen by
    cross-validation, theta is free. A tie is half a win and half a loss. The plain win rate where lengths are all equal.
    """
    from sklearn.linear_model import LogisticRegression

    outcome = np.asarray(outcomes, dtype=np.float64)
    difference = np.asarray(our_lengths, dtype=np.float64) - np.asarray(their_lengths, dtype=np.float64)
    deviation = float(difference.std())
    if deviation == 0.0 or len(set(outcome.tolist()) - {0.5}) < 2:
        return mean_with_interval(outcomes)
    feature = np.tanh(difference / deviation)
    strength = _penalty_by_cross_validation(feature, outcome)

    def adjusted(index: NDArray[np.int64]) -> float:
        features, labels, weights = _as_classes(feature[index], outcome[index])
        if len(set(labels.tolist())) < 2:
            return float(outcome[index].mean())
        model = LogisticRegression(C=strength).fit(features, labels, sample_weight=weights)
        return float(1 / (1 + np.exp(-model.intercept_[0])))

    resamples = _resamples(len(outcome))[: RESAMPLES // 10]
    return _interval(adjusted(np.arange(len(outcome))), np.asarray([adjusted(index) for index in resamples]))


def _penalty_by_cross_validation(feature: Floats, outcome: Floats) -> float:
    """C with the best held-out log-likelihood over five folds of prompts."""
    from sklearn.linear_model import LogisticRegression

    folds = np.random.default_rng(0).permutation(len(outcome)) % 5
    best, best_likelihood = 1.0, -np.inf
    for candidate in (0.01, 0.1, 1.0, 10.0):
        likelihood = 0.0
        for fold in range(5):
            features, labels, weights = _as_classes(feature[folds != fold], outcome[folds != fold])
            if len(set(labels.tolist())) < 2:
                continue
            model = LogisticRegression(C=candidate).fit(features, labels, sample_weight=weights)
            probability = model.predict_proba(feature[folds == fold][:, None])[:, 1] if (folds == fold).any() else np.zeros(0)
            held = outcome[folds == fold]
            likelihood += float((held * np.log(probability) + (1 - held) * np.log(1 - probability)).sum())
        if likelihood > best_likelihood:
            best, best_likelihood = candidate, likelihood
    return best


def _as_classes(feature: Floats, outcome: Floats) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Each comparison twice, as a win and as a loss, weighted by its outcome."""
    features = np.concatenate([feature, feature])[:, None]
    labels = np.concatenate([np.ones(len(outcome), dtype=np.int64), np.zeros(len(outcome), dtype=np.int64)])
    weights = np.concatenate([outcome, 1 - outcome])
    kept = weights > 0
    return features[kept], labels[kept], weights[kept]


def _resamples(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, size, (RESAMPLES, size))


def _interval(value: float, resampled: Floats) -> MetricValue:
    lower, upper = np.percentile(resampled, [2.5, 97.5])
    return metric(value, float(lower), float(upper))
