"""What the report page shows of an iterate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_api.stage import EvaluateWork

from . import stats
from .answers import Answer, in_order_of, judge_score_of, of_validation

EXAMPLES_SHOWN = 10


def report(
    work: EvaluateWork, answers: Sequence[Answer], initial: Sequence[Answer] | None, counts: Mapping[str, int]
) -> dict[str, Any]:
    """What the report page shows of this iterate; small, and JSON, so that a base install can read it."""
    own = of_validation(answers)
    first = in_order_of(own, initial) if initial is not None else None
    order = sorted(range(len(own)), key=lambda i: (judge_score_of(own[i]), own[i].prompt_id))
    shown = list(dict.fromkeys(order[:EXAMPLES_SHOWN] + order[-EXAMPLES_SHOWN:]))
    return {
        "iterate": work.iterate,
        "examples": [_shown(own[i], first[i] if first else None) for i in shown],
        "test": _test_figures(answers, initial, points=not work.judge.type.compares),
        "counts": dict(counts),
    }


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


def _test_figures(answers: Sequence[Answer], initial: Sequence[Answer] | None, *, points: bool) -> dict[str, Any] | None:
    """A judge that compares has no mean; what is gained against pi_0 is the probability above a half of being better."""
    figures: dict[str, Any] = {}
    for decoding in ("sampled", "greedy"):
        own = {a.prompt_id: judge_score_of(a) for a in answers if (a.set, a.decoding) == ("test", decoding)}
        if not own:
            return None
        gain = None
        if initial is not None:
            first = {a.prompt_id: judge_score_of(a) for a in initial if (a.set, a.decoding) == ("test", decoding)}
            gain = stats.difference_with_interval(list(own.values()), [first[prompt] for prompt in own]).to_wire()
        figures["prompts"] = len(own)
        figures[decoding] = {
            "judgeMean": stats.mean_with_interval(list(own.values())).to_wire() if points else None,
            "gainVsInitial": gain,
        }
    return figures
