"""From answers to the metrics of api.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from rlhf_api.evaluation import Against
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import EvaluateWork, PolicyInput
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Example, Packing
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.context import StageContext, metric
from rlhf_trainer.runtime.narrow import present

from . import stats

EXAMPLES_SHOWN = 10


@dataclass(frozen=True)
class Answer:
    """A row of the evaluation artifact."""

    set: str
    decoding: str
    prompt_id: str
    messages: Sequence[Mapping[str, str]]
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    text: str
    finish_reason: str
    judge_score: float | None = None
    reward_score: float | None = None


@dataclass(frozen=True)
class Divergence:
    """A figure a sample: summed log-ratio to pi_0 and summed entropy in nats, tokens."""

    log_ratios: Sequence[float]
    entropies: Sequence[float]
    tokens: Sequence[float]


def evaluation_metrics(
    work: EvaluateWork,
    answers: Sequence[Answer],
    initial: Sequence[Answer] | None,
    previous: Sequence[Answer] | None,
    kl: Divergence,
) -> dict[Metric, MetricValue]:
    """Over the validation prompts; test prompts are for the report alone."""
    own = _validation(answers)
    lengths = [float(len(a.completion_ids)) for a in own]
    metrics = {
        Metric.JUDGE_MEAN: stats.mean_with_interval([_judge(a) for a in own]),
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
        first = _in_order_of(own, initial)
        first_lengths = [float(len(a.completion_ids)) for a in first]
        metrics[Metric.MEAN_LENGTH_RATIO_VS_INITIAL] = stats.ratio_with_interval(lengths, first_lengths)
        if Against.INITIAL in work.against:
            outcomes = _outcomes(own, first)
            metrics[Metric.WIN_RATE_VS_INITIAL] = stats.mean_with_interval(outcomes)
            metrics[Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL] = stats.length_adjusted_win_rate(outcomes, lengths, first_lengths)
    if previous is not None and Against.PREVIOUS in work.against:
        outcomes = _outcomes(own, _in_order_of(own, previous))
        metrics[Metric.WIN_RATE_VS_PREVIOUS] = stats.mean_with_interval(outcomes)
    return metrics


def _outcomes(ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[float]:
    """1, ½ or 0 a prompt. Equal answers tie: they were judged in different stages, and the last bits of a score are its batch's."""
    scores = [(0.0, 0.0) if a.text == b.text else (_judge(a), _judge(b)) for a, b in zip(ours, theirs, strict=True)]
    return stats.wins([a for a, _ in scores], [b for _, b in scores])


def divergence(context: StageContext, work: EvaluateWork, answers: Sequence[Answer]) -> Divergence:
    """log pi_t - log pi_0 of what pi_t said at temperature 1, both sides by the trainer's forward."""
    examples = [Example(a.prompt_ids, [a.completion_ids]) for a in answers if a.completion_ids]
    ours, entropies, tokens = _score(context, work.policy, examples)
    if work.policy == work.initial:
        return Divergence([0.0] * len(ours), entropies, tokens)
    theirs, _, _ = _score(context, work.initial, examples)
    return Divergence([a - b for a, b in zip(ours, theirs, strict=True)], entropies, tokens)


def distinct_2(sequences: Sequence[Sequence[int]]) -> float:
    """Distinct bigrams of ids divided by bigrams, over all sequences together."""
    bigrams = [pair for sequence in sequences for pair in pairwise(sequence)]
    return len(set(bigrams)) / max(1, len(bigrams))


def report(
    work: EvaluateWork, answers: Sequence[Answer], initial: Sequence[Answer] | None, counts: Mapping[str, int]
) -> dict[str, Any]:
    """What the report page shows of this iterate; small, and JSON, so that a base install can read it."""
    own = _validation(answers)
    first = _in_order_of(own, initial) if initial is not None else None
    order = sorted(range(len(own)), key=lambda i: (_judge(own[i]), own[i].prompt_id))
    shown = list(dict.fromkeys(order[:EXAMPLES_SHOWN] + order[-EXAMPLES_SHOWN:]))
    return {
        "iterate": work.iterate,
        "examples": [_shown(own[i], first[i] if first else None) for i in shown],
        "test": _test_figures(answers, initial),
        "counts": dict(counts),
    }


def _score(context: StageContext, policy: PolicyInput, examples: list[Example]) -> tuple[list[float], list[float], list[float]]:
    """(logps, entropies, tokens), one a sample, in the order of `examples`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = context.model_folder(policy.model)
    model = load_causal_lm(folder, TORCH_DTYPE[policy.dtype], trust_remote_code=context.trusts(policy.model)).to(device)
    position = {id(example): index for index, example in enumerate(examples)}
    logps, entropies, tokens = ([0.0] * len(examples) for _ in range(3))
    packing = Packing.choose(max((example.tokens for example in examples), default=1), device)
    for row in score_examples(model, examples, packing, with_entropy=True):
        for number, example in enumerate(row.examples):
            index = position[id(example)]
            logps[index], tokens[index] = row.logps[number], row.tokens[number]
            entropies[index] = row.entropies[number] if row.entropies else 0.0
    return logps, entropies, tokens


def _validation(answers: Sequence[Answer]) -> list[Answer]:
    return [a for a in answers if a.set == "validation" and a.decoding == "sampled"]


def _in_order_of(own: Sequence[Answer], others: Sequence[Answer]) -> list[Answer]:
    by_prompt = {a.prompt_id: a for a in _validation(others)}
    return [by_prompt[a.prompt_id] for a in own]


def _judge(answer: Answer) -> float:
    return present(answer.judge_score, "the judge's score")


def _shown(answer: Answer, first: Answer | None) -> dict[str, Any]:
    return {
        "promptId": answer.prompt_id,
        "prompt": "\n".join(message["content"] for message in answer.messages),
        "response": answer.text,
        "initialResponse": first.text if first else None,
        "judge": answer.judge_score,
        "initialJudge": first.judge_score if first else None,
        "reward": answer.reward_score,
    }


def _test_figures(answers: Sequence[Answer], initial: Sequence[Answer] | None) -> dict[str, Any] | None:
    figures: dict[str, Any] = {}
    for decoding in ("sampled", "greedy"):
        own = {a.prompt_id: _judge(a) for a in answers if (a.set, a.decoding) == ("test", decoding)}
        if not own:
            return None
        gain = None
        if initial is not None:
            first = {a.prompt_id: _judge(a) for a in initial if (a.set, a.decoding) == ("test", decoding)}
            gain = stats.difference_with_interval(list(own.values()), [first[prompt] for prompt in own]).to_wire()
        figures["prompts"] = len(own)
        figures[decoding] = {
            "judgeMean": stats.mean_with_interval(list(own.values())).to_wire(),
            "gainVsInitial": gain,
        }
    return figures
