"""A judge that the stage reads itself: its answers are those that vLLM serves of the same model, and it leaves no engine behind."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from rlhf_api.resource.labeler import JudgeEndpoint, LlmJudge
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.sampling import Engine
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.judge.asking import Answer, Asked
from rlhf_trainer.labelers.judge.endpoint import Endpoint
from rlhf_trainer.labelers.judge.labeler import JudgeLabeler
from rlhf_trainer.labelers.judge.own_model import OwnModel, penalties_of
from rlhf_trainer.labelers.judge.question import question, template_of
from rlhf_trainer.models.sampling.engine import SamplingEngine
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import user
from support.tiny_models import save_decided_judge, save_opinionated_judge
from support.vllm_server import vllm_server

pytestmark = pytest.mark.engine

TEXTS = ("a tit", "a wren", "none", "lion moon lion")
KEY = "sk-of-this-test"


def responses(turn: str = "Which one?") -> list[Response]:
    return [Response([user(turn)], text, f"completion {text}") for text in TEXTS]


def judge_of(folder: Path, bound: float = 0.1) -> JudgeLabeler:
    spec = LlmJudge(model=ModelRef(uri=f"file://{folder}"), max_parse_failures=bound)
    return JudgeLabeler(OwnModel(folder, f"file://{folder}", Engine()), spec)


def asked() -> list[Asked]:
    """Short enough for an opinion on each, and one as a judge is asked."""
    texts = ["lion", "moon lion", "a", "wren tit lion", "which one", "x " * 50]
    texts.append(question(template_of(None), *responses()[:2]))
    return [Asked(text, f"pair {number}", str(number)) for number, text in enumerate(texts)]


def test_its_answers_are_those_of_the_same_model_behind_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    folder = save_opinionated_judge(tmp_path / "model")
    own: list[Answer] = list(OwnModel(folder, "own", Engine()).ask(asked()))
    with vllm_server(folder, "judge", KEY, tmp_path / "log") as url:
        spec = JudgeEndpoint.model_validate({"baseUrl": url, "model": "judge", "apiKey": {"secretRef": {"name": "key"}}})
        served = list(Endpoint(spec, seed=0).ask(asked()))
    assert own == served
    assert len(set(own)) > 1, "what it says depends on what it is asked"
    assert {answer.text for answer in own} <= {"[[A]]", "[[B]]", "[[C]]"}


def test_it_scores_and_compares_in_both_orders_and_leaves_no_engine_behind(tmp_path: Path) -> None:
    judge = judge_of(save_decided_judge(tmp_path / "model"))
    assert judge.score(responses()) == [0.5] * 4, "it likes what stands first"
    assert judge.counts == {"judgeRequests": 12, "judgeAnswers": 12}
    pairs = [(responses()[0], responses()[1]), (responses("And now?")[2], responses("And now?")[3])]
    assert judge.compare(pairs) == [0.5, 0.5]
    assert judge.counts == {"judgeRequests": 14, "judgeAnswers": 14}, "what is known is not asked again"
    gc.collect()
    assert not [found for found in gc.get_objects() if isinstance(found, SamplingEngine) and hasattr(found, "_llm")]


def test_answers_without_a_verdict_end_the_stage(tmp_path: Path) -> None:
    judge = judge_of(save_decided_judge(tmp_path / "model", says="[[D]]"))
    with pytest.raises(ConfigurationProblem, match=r"answers of the judge file://.*have no verdict.*judgeAnswersWithoutVerdict"):
        judge.score(responses())
    with pytest.raises(ConfigurationProblem, match=r"answers about two harmless responses has no verdict: '\[\[D\]\]'"):
        judge.rehearse()


def test_a_question_that_does_not_fit_is_named(tmp_path: Path) -> None:
    judge = judge_of(save_decided_judge(tmp_path / "model"))
    with pytest.raises(
        ConfigurationProblem,
        match=r"cannot be asked about completion a tit, which begins 'a tit'.*1024 for the answer.*4096 positions",
    ):
        judge.score(responses("word " * 6000))


def test_penalties_of_its_generation_config_are_known(tmp_path: Path) -> None:
    folder = save_decided_judge(tmp_path / "model")
    assert penalties_of(folder) == {}
    said = {"repetition_penalty": 1.05, "presence_penalty": 0.0, "temperature": 0.7}
    (folder / "generation_config.json").write_text(json.dumps(said))
    assert penalties_of(folder) == {"repetition_penalty": 1.05}
