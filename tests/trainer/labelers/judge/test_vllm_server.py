"""A judge that vLLM serves: what is asked, and what comes back, are what its server takes and gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.resource.labeler import JudgeEndpoint, Labeler, LabelerType, LlmJudge
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.judge.labeler import JudgeLabeler
from rlhf_trainer.preflight import judges
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import user
from support.tiny_models import save_decided_judge
from support.vllm_server import vllm_server

pytestmark = pytest.mark.engine

KEY = "sk-of-this-test"


def test_a_judge_behind_vllm_is_asked_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = save_decided_judge(tmp_path / "model")
    with vllm_server(model, "judge", KEY, tmp_path / "log") as url:
        spec = JudgeEndpoint.model_validate({"baseUrl": url, "model": "judge", "apiKey": {"secretRef": {"name": "key"}}})
        judge = LlmJudge(endpoint=spec)
        warnings: list[str] = []
        judges.answers(Labeler(type=LabelerType.JUDGE, judge=judge), "reward", 0, warnings)
        assert "nothing pins the judge" in warnings[0]
        labeler = JudgeLabeler.load(judge, spec, seed=0)
        responses = [Response([user("Which one?")], text, f"completion {text}") for text in ("a tit", "a wren", "none")]
        assert labeler.score(responses) == [0.5, 0.5, 0.5], "it likes what stands first"
        assert labeler.counts == {"judgeRequests": 6, "judgeAnswers": 6}

        for changed, words in (
            ({"model": "other"}, "has no model 'other'"),
            ({"base_url": f"{url}/nowhere"}, "or no chat completions (HTTP 404"),
            ({"api_key": None}, "refuses the key (HTTP 401)"),
        ):
            with pytest.raises(ConfigurationProblem) as raised:
                JudgeLabeler.load(judge, spec.model_copy(update=changed), seed=0).score(responses)
            assert words in str(raised.value)
            assert KEY not in str(raised.value)
        long = [Response([user("word " * 6000)], text, f"completion {text}") for text in "ab"]
        with pytest.raises(ConfigurationProblem, match=r"refuses to be asked about completion a, which begins 'a'.*4096"):
            labeler.score(long)
