"""A watch that loses its API server: it waits, says so, and gives up in time. The server speaks HTTP; only the time is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import Configuration

from rlhf_operator.kubernetes.api import errors as api
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import PODS
from rlhfctl.errors import CliError, NoConnection
from rlhfctl.sources.cluster import changes
from rlhfctl.sources.cluster.changes import PATIENCE_SECONDS, REFUSED_SECONDS
from rlhfctl.sources.cluster.connection import Connection
from rlhfctl.sources.cluster.kubeconfig import Target
from support.http_server import serving

EVENT = json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}})


@dataclass
class Time:
    """Goes on when somebody sleeps, and by a moment each time that somebody looks."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made_up = Time()
    monkeypatch.setattr(changes, "time", SimpleNamespace(monotonic=made_up.monotonic, sleep=made_up.sleep))
    return made_up


@contextmanager
def server(*watches: int | str | None) -> Iterator[str]:
    """Lists are answered. Watches get these answers, the last for ever: a status, a line of a watch that then ends, or (None) an
    answer that breaks off.
    """
    answers = list(watches)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer: int | str | None = json.dumps({"items": [], "metadata": {"resourceVersion": "7"}})
            if "watch=true" in self.path:
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(answer if isinstance(answer, int) else 200)
            content = f"{answer}\n".encode() if isinstance(answer, str) else b"{}" if answer else b""
            self.send_header("Content-Length", str(len(content) + (answer is None)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as url:
        yield url


def watched(url: str, notes: list[str]) -> None:
    """Follow Events until that is given up."""
    target = Target((), "one", url, "team")
    for _ in Connection(Cluster(Configuration(host=url)), target).event_changes("team", notes.append):
        raise AssertionError("there are no Events")


@pytest.mark.parametrize(("answer", "patience"), [(503, PATIENCE_SECONDS), (None, PATIENCE_SECONDS), (401, REFUSED_SECONDS)])
def test_a_server_that_stays_away_is_waited_for_with_patience_and_then_named(
    time: Time, answer: int | None, patience: float
) -> None:
    notes: list[str] = []
    begun = time.now
    with server(answer) as url, pytest.raises(NoConnection, match=url):
        watched(url, notes)
    assert patience <= time.now - begun < patience + 10
    assert max(time.slept) > 1, "it asks less and less often"
    (note,) = notes
    assert f"the connection to {url} is lost" in note


def test_one_failure_is_no_news_and_contact_begins_the_patience_anew(time: Time) -> None:
    notes: list[str] = []
    with server(503, EVENT, 503, 503, EVENT, 401) as url, pytest.raises(NoConnection):
        watched(url, notes)
    assert [note.split(" (")[0].replace(url, "it") for note in notes] == [
        "the connection to it is lost",
        "connected to it again",
        "the connection to it is lost",
    ]


class Starting:
    """A server that lists nothing until it has filled its caches, and then lets nobody watch."""

    def __init__(self, refusals: int) -> None:
        self._refusals = refusals

    def pages(self, *_: object, **__: object) -> list[object]:
        if self._refusals:
            self._refusals -= 1
            raise api.Unavailable(429, "TooManyRequests", "storage is (re)initializing")
        return [SimpleNamespace(items=[], resource_version="7")]

    def watch(self, *_: object, **__: object) -> Iterator[object]:
        raise api.Unauthorized(401, "Unauthorized", "")


def first_list(known: dict[str, Mapping[str, Any]] | None, notes: list[str]) -> None:
    cluster: Any = Starting(refusals=3)
    list(changes.changes(cluster, PODS, "team", Target((), "one", "https://here", "team"), notes.append, known=known))


def test_a_server_that_has_answered_a_moment_ago_is_waited_for_from_the_first_list_on(time: Time) -> None:
    """It was restarted in between."""
    notes: list[str] = []
    with pytest.raises(CliError):
        first_list({}, notes)
    told = [note.split(" (")[0] for note in notes]
    assert told[:2] == ["the connection to https://here is lost", "connected to https://here again"]


def test_the_first_that_is_asked_of_a_server_is_not_waited_for(time: Time) -> None:
    with pytest.raises(NoConnection, match="does not answer"):
        first_list(None, [])
    assert time.slept == []


def refusing(answers: list[api.ClusterError | str]) -> str:
    """As a read of Connection does."""
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, str):
        return answer
    raise NoConnection("https://here does not answer") from answer


def test_who_follows_a_run_reads_again_while_a_server_fills_its_caches(time: Time) -> None:
    notes: list[str] = []
    starting = api.Unavailable(429, "TooManyRequests", "storage is (re)initializing")
    answers: list[api.ClusterError | str] = [*[starting] * 8, "pods"]
    assert changes.patiently(lambda: refusing(answers), "https://here", notes.append) == "pods"
    assert [note.split(" (")[0] for note in notes] == ["the connection to https://here is lost", "connected to https://here again"]


def test_who_follows_a_run_does_not_read_for_ever(time: Time) -> None:
    away: list[api.ClusterError | str] = [api.Unavailable(503, "", "away")]
    begun = time.now
    with pytest.raises(NoConnection):
        changes.patiently(lambda: refusing(away), "https://here", lambda _: None)
    assert PATIENCE_SECONDS <= time.now - begun < PATIENCE_SECONDS + 10
