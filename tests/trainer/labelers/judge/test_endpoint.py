"""A judge that is slow, away, wrong or ill-meaning: what is tried again, what is said; and that nobody is told the key."""

from __future__ import annotations

import logging
import threading
import traceback
from typing import Any

import pytest

from rlhf_api.conventions.mounts import api_key_variable
from rlhf_api.resource.labeler import JudgeEndpoint, SecretKey
from rlhf_trainer.labelers.judge.asking import Answer, Asked
from rlhf_trainer.labelers.judge.endpoint import Endpoint, Patience
from rlhf_trainer.labelers.judge.key import key_of
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient
from support.chat_server import ChatServer, Reply, chat_server, said, wrong

CANARY = 'sk-canary/7f"3+x'
KEYED: dict[str, Any] = {"apiKey": {"secretRef": {"name": "judge-key"}}}


class Waits:
    """Waits for nothing, and remembers for how long it would have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, stopped: threading.Event, seconds: float) -> None:
        self.seconds.append(seconds)


def endpoint(server: ChatServer | str, waits: Waits | None = None, seed: int = 0, **fields: Any) -> Endpoint:
    url = server if isinstance(server, str) else server.url
    spec = JudgeEndpoint.model_validate({"baseUrl": url, "model": "judge", "retries": 3, **fields})
    return Endpoint(spec, seed, Patience(pause=waits or Waits()))


def ask(found: Endpoint, count: int = 1) -> list[Answer]:
    return list(found.ask([Asked(f"question {n}", f"prompt {n}", f"place {n}") for n in range(count)]))


def refused(server: ChatServer | str, **fields: Any) -> StageError:
    with pytest.raises(StageError) as raised:
        ask(endpoint(server, **fields))
    return raised.value


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_may_pass_is_asked_again(status: int) -> None:
    with chat_server(lambda question, count: wrong(status) if count < 2 else said("[[A]]")) as server:
        found = endpoint(server)
        assert ask(found) == [Answer("[[A]]")]
        assert found.requests == len(server.asked) == 3


def test_what_does_not_pass_is_a_matter_of_infrastructure() -> None:
    with chat_server(lambda question, count: wrong(503)) as server:
        error = refused(server)
    assert isinstance(error, Transient)
    assert error.reason == "JudgeUnavailable"
    assert "answers with HTTP 503, asked 4 times about prompt 0" in str(error)
    assert len(server.asked) == 4


def test_waits_double_with_full_jitter_from_the_seed() -> None:
    def waited(seed: int, **fields: Any) -> list[float]:
        waits = Waits()
        with chat_server(lambda question, count: wrong(500)) as server, pytest.raises(Transient):
            ask(endpoint(server, waits, seed, retries=8, **fields))
        return waits.seconds

    one = waited(1)
    assert waited(1) == one
    assert waited(2) != one
    assert all(0 <= wait <= min(60, 2**attempt) for attempt, wait in enumerate(one))
    assert len(one) == 8


def test_an_endpoint_that_says_when_is_asked_no_earlier() -> None:
    waits = Waits()
    with chat_server(lambda question, count: wrong(429, retry_after="17") if count == 0 else said("[[A]]")) as server:
        ask(endpoint(server, waits))
    assert waits.seconds == [17.0]


def test_one_that_hangs_up_in_the_middle_is_asked_again() -> None:
    whole = said("[[A]] " + "x" * 100)
    cut = Reply(body=whole.body, cut=40)
    with chat_server(lambda question, count: cut if count == 0 else whole) as server:
        assert ask(endpoint(server))[0].text.startswith("[[A]]")
    with chat_server(lambda question, count: cut) as server:
        error = refused(server)
    assert isinstance(error, Transient)
    assert "cannot be reached, or hangs up" in str(error)


def test_one_that_does_not_answer_is_waited_for_so_long_as_is_said() -> None:
    release = threading.Event()

    def slow(question: str, count: int) -> Reply:
        release.wait(30)
        return said("[[A]]")

    with chat_server(slow) as server:
        try:
            error = refused(server, timeoutSeconds=1, retries=1)
        finally:
            release.set()
    assert isinstance(error, Transient)
    assert "has not answered within 1 s, asked 2 times" in str(error)


def test_one_that_is_not_there_is_named() -> None:
    with chat_server(lambda question, count: said("")) as server:
        url = server.url
    error = refused(url)
    assert isinstance(error, Transient)
    assert f"judge at {url} cannot be reached" in str(error)


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b'{"choices": []}', b"[]", b'{"choices": [{"message": {"content": 3}}]}']
)
def test_what_is_no_chat_completion_is_a_matter_of_configuration(body: bytes) -> None:
    with chat_server(lambda question, count: Reply(body=body)) as server:
        error = refused(server)
    assert isinstance(error, ConfigurationProblem)
    assert "answers with what is no chat completion" in str(error)
    assert "Set baseUrl to" in str(error)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (wrong(401), "refuses the key (HTTP 401): no key; give apiKey"),
        (wrong(403), "refuses the key (HTTP 403)"),
        (
            wrong(404, "The model `judge` does not exist."),
            "has no model 'judge', or no chat completions (HTTP 404: The model `judge`",
        ),
        (wrong(400, "maximum context length is 8"), "refuses to be asked about prompt 0 (HTTP 400: maximum context length is 8)"),
        (wrong(429, "You exceeded your quota", "insufficient_quota"), "(HTTP 429: You exceeded your quota)"),
    ],
)
def test_what_no_waiting_changes_is_said_at_once(reply: Reply, words: str) -> None:
    with chat_server(lambda question, count: reply) as server:
        error = refused(server)
    assert isinstance(error, ConfigurationProblem)
    assert words in str(error)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "reply", [said(None, "content_filter"), said("", refusal="I will not."), wrong(400, "filtered", "content_filter")]
)
def test_a_refusal_is_an_answer(reply: Reply) -> None:
    with chat_server(lambda question, count: reply) as server:
        assert ask(endpoint(server)) == [Answer("", refused=True)]


def test_no_more_is_asked_once_something_is_wrong() -> None:
    with chat_server(lambda question, count: wrong(401)) as server:
        found = endpoint(server, concurrency=2)
        with pytest.raises(ConfigurationProblem, match="refuses the key"):
            ask(found, 50)
    assert len(server.asked) <= 2


def test_no_more_are_at_work_than_are_allowed() -> None:
    lock, at_work, most = threading.Lock(), 0, 0
    together = threading.Barrier(3)

    def reply(question: str, count: int) -> Reply:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        together.wait(30)
        with lock:
            at_work -= 1
        return said(question)

    with chat_server(reply) as server:
        answers = ask(endpoint(server, concurrency=3), 9)
    assert [answer.text for answer in answers] == [f"question {n}" for n in range(9)]
    assert most == 3


def test_what_is_repeated_is_paid_for() -> None:
    with chat_server(lambda question, count: wrong(500)) as server:
        error = refused(server, maxRequests=2)
    assert isinstance(error, ConfigurationProblem)
    assert error.reason == "JudgeBudgetSpent"
    assert "was asked 2 times by this process, and endpoint.maxRequests allows 2" in str(error)
    assert len(server.asked) == 2


ECHOES = {
    "401": wrong(401, f"Incorrect API key provided: {CANARY}."),
    "404": wrong(404, f"unknown {CANARY}"),
    "400": wrong(400, "x" * 290 + CANARY),
    "no completion": Reply(body=f"<html>{CANARY}</html>".encode()),
    "500": wrong(500, CANARY),
    "no JSON": Reply(401, CANARY.encode()),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_endpoint_repeats_is_told_to_nobody(
    reply: Reply, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    with chat_server(lambda question, count: reply) as server:
        found = endpoint(server, **KEYED)
        with pytest.raises(StageError) as raised:
            ask(found)
    assert server.keys[0] == f"Bearer {CANARY}", "it was sent"
    out, err = capfd.readouterr()
    whole = "".join(traceback.format_exception(raised.value))
    told = "\n".join([whole, repr(raised.value), repr(found), repr(vars(found)), out, err, caplog.text])
    for part in (CANARY, "sk-canary"):
        assert part not in told
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_a_key_in_an_answer_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with chat_server(lambda question, count: said(f"Your key is {CANARY}. [[A]]")) as server:
        assert ask(endpoint(server, **KEYED)) == [Answer("Your key is (the key). [[A]]")]


def test_a_pods_own_key_comes_before_the_machines_and_none_is_sent_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "machine")
    monkeypatch.setenv(api_key_variable(SecretKey(name="judge-key")), "pod\n")
    with chat_server(lambda question, count: said("[[A]]")) as server:
        ask(endpoint(server, **KEYED))
        ask(endpoint(server))
    assert server.keys == ["Bearer pod", "Bearer none"]


def test_a_key_that_is_missing_or_no_key_is_named_by_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = JudgeEndpoint.model_validate({"baseUrl": "http://a/v1", "model": "b", **KEYED})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationProblem, match=r"key OPENAI_API_KEY of Secret judge-key is empty.* OPENAI_API_KEY to it"):
        key_of(spec)
    monkeypatch.setenv("OPENAI_API_KEY", "sk canary")
    with pytest.raises(ConfigurationProblem, match="holds blanks") as raised:
        key_of(spec)
    assert "sk canary" not in str(raised.value)
