"""From answers to metrics: validation prompts only, paired by prompt, pi_0 against itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_api.metrics import Metric
from rlhf_api.resource.evaluation import Against
from rlhf_api.resource.labeler import Labeler, LabelerType
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import EvaluateWork
from rlhf_trainer.evaluation.answers import Answer
from rlhf_trainer.evaluation.divergence import Divergence
from rlhf_trainer.evaluation.metrics import evaluation_metrics
from rlhf_trainer.evaluation.report import report
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import evaluate
from support.stages import config_of, context_of

PROMPTS = [f"p{i}" for i in range(10)]


def work_of(iterate: int, against: list[Against] | None = None) -> EvaluateWork:
    policy = {"model": {"source": {"uri": "hf://example/base"}}, "dtype": "float32"}
    rule = {"type": "Rule", "rule": {"entryPoint": "rules:judge"}}
    return EvaluateWork.model_validate(
        {
            "iterate": iterate,
            "policy": policy,
            "initial": policy,
            "against": against if against is not None else [Against.INITIAL, Against.PREVIOUS],
            "judge": rule,
            "reward": rule,
            "prompts": {"source": {"uri": "hf://example/prompts"}},
            "iterations": 2,
            "sampling": {"temperature": 1.0},
            "maxNewTokens": 8,
            "maxPromptLength": 8,
        }
    )


def answers(scores: list[float], *, tokens: int = 4, of: str = "validation", decoding: str = "sampled") -> list[Answer]:
    return [
        Answer(
            set=of,
            decoding=decoding,
            prompt_id=prompt,
            messages=[{"role": "user", "content": prompt}],
            prompt_ids=[1],
            completion_ids=[5] * tokens,
            text=f"answer {score}",
            finish_reason="length" if prompt == "p0" else "stop",
            judge_score=score,
            reward_score=score * 2,
        )
        for prompt, score in zip(PROMPTS, scores, strict=True)
    ]


DIVERGENCE = Divergence([0.5] * 10, [4.0] * 10, [4.0] * 10)
HALF = [0.5] * 10


def metrics(
    iterate: int,
    own: list[Answer],
    initial: list[Answer] | None = None,
    previous: list[Answer] | None = None,
    against: list[Against] | None = None,
) -> dict[Metric, float]:
    found = evaluation_metrics(work_of(iterate, against), own, initial, previous, DIVERGENCE)
    return {metric: value.value for metric, value in found.items()}


def test_the_metrics_of_an_iterate_are_those_of_its_validation_answers() -> None:
    extra = [
        *answers([9.0] * 10, of="test"),
        *answers([9.0] * 10, of="test", decoding="greedy"),
        *answers(HALF, decoding="unbiased"),
    ]
    found = metrics(0, [*extra, *answers(HALF)])
    assert found[Metric.JUDGE_MEAN] == 0.5
    assert found[Metric.REWARD_MEAN] == 1.0
    assert found[Metric.MEAN_LENGTH] == 4.0
    assert found[Metric.CLIPPED_SHARE] == 0.1
    assert found[Metric.KL_TO_INITIAL] == 0.5
    assert found[Metric.KL_TO_INITIAL_PER_TOKEN] == 0.125
    assert found[Metric.ENTROPY_PER_TOKEN] == 1.0


def test_pi_0_has_half_against_itself_and_no_predecessor() -> None:
    found = metrics(0, answers(HALF))
    assert found[Metric.WIN_RATE_VS_INITIAL] == 0.5
    assert found[Metric.MEAN_LENGTH_RATIO_VS_INITIAL] == 1.0
    assert Metric.WIN_RATE_VS_PREVIOUS not in found


def test_answers_are_compared_prompt_by_prompt_whatever_their_order() -> None:
    own = answers([1.0] * 6 + [0.5] * 2 + [0.0] * 2, tokens=6)
    initial = answers(HALF)[::-1]
    previous = [replace(answer, judge_score=2.0, text="better") for answer in answers(HALF)]
    found = metrics(1, own, initial, previous)
    assert found[Metric.WIN_RATE_VS_INITIAL] == 0.7
    assert found[Metric.WIN_RATE_VS_PREVIOUS] == 0.0
    assert found[Metric.MEAN_LENGTH_RATIO_VS_INITIAL] == 1.5


def test_equal_answers_tie_whatever_the_last_bits_of_their_scores() -> None:
    """They were judged in two stages, beside other answers."""
    own = answers(HALF)
    initial = [replace(answer, judge_score=0.5 + 1e-7) for answer in answers(HALF)]
    assert metrics(1, own, initial)[Metric.WIN_RATE_VS_INITIAL] == 0.5


def test_a_judge_that_compares_gives_win_rates_and_no_mean() -> None:
    """Its scores are against pi_0's answers; the predecessor's it is shown."""
    shown: list[tuple[str, str]] = []

    def compare(pairs: Sequence[tuple[Answer, Answer]]) -> list[float]:
        shown.extend((a.text, b.text) for a, b in pairs)
        return [0.1] * 6 + [0.5] * 2 + [0.9] * 2

    own = answers([0.6] * 7 + [0.5] + [0.4] * 2)
    previous = [replace(answer, text="before") for answer in answers(HALF)][::-1]
    work = work_of(1)
    work = work.model_copy(update={"reward": Labeler(type=LabelerType.PAIRWISE)})
    found = evaluation_metrics(work, own, answers(HALF), previous, DIVERGENCE, compare)
    assert found[Metric.WIN_RATE_VS_INITIAL].value == 0.75
    assert found[Metric.WIN_RATE_VS_PREVIOUS].value == 0.3
    assert shown == [(answer.text, "before") for answer in own]
    assert found.keys().isdisjoint({Metric.JUDGE_MEAN, Metric.REWARD_MEAN})
    first = evaluation_metrics(work_of(0), answers(HALF), None, None, DIVERGENCE, compare)
    assert first[Metric.WIN_RATE_VS_INITIAL].value == 0.5


@pytest.mark.parametrize("against", [[Against.INITIAL], [Against.PREVIOUS]])
def test_only_the_comparisons_that_are_asked_for_are_made(against: list[Against]) -> None:
    found = metrics(1, answers(HALF), answers(HALF), answers(HALF), against=against)
    assert (Metric.WIN_RATE_VS_INITIAL in found) == (Against.INITIAL in against)
    assert (Metric.WIN_RATE_VS_PREVIOUS in found) == (Against.PREVIOUS in against)


def test_the_report_shows_best_and_worst_side_by_side_and_the_gain_on_test_prompts() -> None:
    own = [
        *answers([float(i) for i in range(10)]),
        *answers([0.75] * 10, of="test"),
        *answers([1.0] * 10, of="test", decoding="greedy"),
    ]
    initial = [*answers(HALF), *answers(HALF, of="test"), *answers(HALF, of="test", decoding="greedy")]
    page = report(work_of(1), own, initial, {"validation": 10})
    assert page["iterate"] == 1
    assert [example["judge"] for example in page["examples"]] == [float(i) for i in range(10)]
    assert page["examples"][0]["initialJudge"] == 0.5
    assert page["test"]["prompts"] == 10
    assert page["test"]["sampled"]["gainVsInitial"]["value"] == 0.25
    assert page["test"]["greedy"]["gainVsInitial"]["value"] == 0.5
    assert report(work_of(1), answers(HALF), None, {})["test"] is None


@pytest.mark.parametrize("changed", ["judge", "reward"])
def test_a_rule_whose_code_is_not_what_preflight_saw_is_refused_before_anything_is_sampled(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """The policy of this work does not even exist."""
    (tmp_path / "rules.py").write_text("def judge(messages, response):\n    return 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rules", raising=False)
    work = work_of(0).model_copy(update={f"{changed}_rule_revision": "0" * 40})
    with pytest.raises(ConfigurationProblem, match="rules:judge has other code than when this run began"):
        evaluate.run(context_of(config_of(work, storage), tmp_path / "scratch"))
    sys.modules.pop("rules", None)


def test_people_who_are_the_reward_are_asked_about_no_held_out_prompt(tmp_path: Path) -> None:
    """Nor is there a labeler to load for them, and the reward has no mean."""
    asking = work_of(0).model_copy(update={"reward": Labeler.model_validate({"type": "Human", "human": {}})})
    context = context_of(config_of(asking, Storage(url=f"file://{tmp_path}/store")), tmp_path / "scratch")
    own = [replace(answer, reward_score=None) for answer in answers([0.0, 1.0] * 5)]
    scored = evaluate._rewarded(context, asking, own, None, {})
    assert {answer.reward_score for answer in scored} == {None}
    assert Metric.REWARD_MEAN not in evaluation_metrics(asking, scored, None, None, DIVERGENCE, None)
