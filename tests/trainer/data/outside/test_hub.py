"""A hub that is away is waited for; one that refuses is told of, with what to change. Against a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rlhf_trainer.data.outside.hub import Patience, Repository, commit_of, snapshot_of
from rlhf_trainer.runtime.errors import ConfigurationProblem, Transient

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = Repository("owner/name", "model", None, "secret-token")
BROKEN = 0
"""The connection ends without an answer."""


@dataclass
class Time:
    """Passes when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def patience(self) -> Patience:
        return Patience(120.0, clock=lambda: self.now, sleep=self.sleep)


@contextmanager
def hub_that_answers(answers: Sequence[int], error_code: str | None = None) -> Iterator[str]:
    """Status by request, the last for all that follow; 200: the repository's commit."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = left.pop(0) if len(left) > 1 else left[0]
            if status == BROKEN:
                self.connection.close()
                return
            body = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []} if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if error_code is not None and status != 200:
                self.send_header("X-Error-Code", error_code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("failures", [[503], [429, 500, 408], [BROKEN, BROKEN]])
def test_a_hub_that_comes_back_is_waited_for(failures: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    with hub_that_answers([*failures, 200]) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert commit_of(MODEL, time.patience) == COMMIT
    assert len(time.slept) == len(failures)


@pytest.mark.parametrize("ask", [commit_of, lambda model, patience: snapshot_of(model, ["*.json"], patience)])
def test_one_that_stays_away_is_transient_after_two_minutes_in_all(
    ask: Callable[[Repository, Patience], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is refused, and an answer that never comes, are the client library's errors and not the hub's."""
    with hub_that_answers([200]) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    time = Time()
    with pytest.raises(Transient, match=r"The hub is away for hf://owner/name, .* within 120 s") as raised:
        ask(MODEL, time.patience)
    assert raised.value.reason == "HubUnavailable"
    assert time.now == 120.0


@pytest.mark.parametrize(
    ("status", "error_code", "said"),
    [
        (401, None, r"credentials\.secretRef"),
        (403, None, r"with this token.*403.*credentials\.secretRef"),
        (401, "RepoNotFound", r"does not exist, or the token may not see it.*credentials\.secretRef"),
        (404, "RepoNotFound", "does not exist"),
        (403, "GatedRepo", r"is gated.*credentials\.secretRef"),
        (404, "RevisionNotFound", "there is no such revision"),
        (400, None, "refuses hf://owner/name"),
    ],
)
def test_a_refusal_is_told_at_once_and_names_what_to_change(
    status: int, error_code: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    for ask in (commit_of, lambda model, patience: snapshot_of(model, ["*.json"], patience)):
        with hub_that_answers([status], error_code) as endpoint:
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            with pytest.raises(ConfigurationProblem, match=said) as raised:
                ask(MODEL, time.patience)
        assert "secret-token" not in str(raised.value)
    assert time.slept == []


def test_a_machine_that_must_not_ask_the_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    time = Time()
    with pytest.raises(ConfigurationProblem, match="HF_HUB_OFFLINE"):
        snapshot_of(MODEL, None, time.patience)
    assert time.slept == []
