"""A served judge is asked once before anything runs, and what it will cost is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.storage import Storage
from support.chat_server import ChatServer, Reply, chat_server, said, wrong
from support.preflights import problems, run
from support.stages import spec_of_world


def judged_by(url: str, **endpoint: Any) -> dict[str, Any]:
    served = {"baseUrl": url, "model": "judge", "retries": 0, **endpoint}
    return {"evaluate": {"judge": {"type": "Judge", "judge": {"endpoint": served}}}}


def rewarded_by(url: str, **endpoint: Any) -> dict[str, Any]:
    return {"reward": judged_by(url, **endpoint)["evaluate"]["judge"]}


def test_it_is_asked_about_nothing_of_the_run_and_its_cost_is_a_number(world: Path, storage: Storage, tmp_path: Path) -> None:
    """24 prompts of 4 completions, 12 of validation and 8 of test, one iteration."""
    sample = {**spec_of_world(world).sample.to_wire(), "completionsPerPrompt": 4}
    with chat_server(lambda question, count: said("[[A]]")) as server:
        found = run(world, storage, tmp_path, **rewarded_by(server.url), sample=sample)
        (question,) = server.questions
    assert "What is two plus two?" in question
    assert found.counts["reward.judgeRequests"] == 24 * 4 * 3 + 2 * 12
    warnings = "\n".join(found.warnings)
    assert "reward: nothing pins the judge judge at http" in warnings
    assert "reward: this run asks judge up to 312 times (12 a prompt in label, 288 an iteration; 24 an evaluation)" in warnings
    assert "no bound is set" in warnings
    with chat_server(lambda question, count: said("[[A]]")) as server:
        found = run(world, storage, tmp_path, **judged_by(server.url, maxRequests=80))
    assert found.counts["evaluate.judge.judgeRequests"] == 2 * (2 * 12 + 2 * 8)
    assert "maxRequests allows 80 a stage" in "\n".join(found.warnings)


def test_a_stage_that_needs_more_than_it_may_is_refused(world: Path, storage: Storage, tmp_path: Path) -> None:
    with chat_server(lambda question, count: said("[[A]]")) as server:
        told = problems(world, storage, tmp_path, **judged_by(server.url, maxRequests=79))
    assert "evaluate.judge.judge.endpoint.maxRequests is 79, and one stage asks judge up to 80 times" in told


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (wrong(401), "refuses the key (HTTP 401)"),
        (wrong(404, "The model `judge` does not exist."), "has no model 'judge'"),
        (wrong(503), "evaluate.judge.judge.endpoint: The judge judge at http"),
        (said("I like both."), "has no verdict: 'I like both.'"),
        (said("I", "length"), "about two harmless responses was cut"),
        (said(None, "content_filter"), "refuses to answer"),
    ],
)
def test_what_is_wrong_with_it_is_said(world: Path, storage: Storage, tmp_path: Path, reply: Reply, words: str) -> None:
    server: ChatServer
    with chat_server(lambda question, count: reply) as server:
        assert words in problems(world, storage, tmp_path, **judged_by(server.url))


def test_one_that_is_not_there_is_named(world: Path, storage: Storage, tmp_path: Path) -> None:
    with chat_server(lambda question, count: said("")) as server:
        url = server.url
    told = problems(world, storage, tmp_path, **judged_by(url))
    assert f"judge at {url} cannot be reached" in told
    assert "Start it, or correct baseUrl." in told
