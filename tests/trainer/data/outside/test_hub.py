"""A hub that is away is waited for; one that refuses is told of, with what to change. Against a server on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rlhf_trainer.data.outside.headers import Part
from rlhf_trainer.data.outside.hub import Patience, Repository, commit_of, fetch_without_weights, part_of, snapshot_of
from rlhf_trainer.models.stored import stored_shapes
from rlhf_trainer.runtime.errors import ConfigurationProblem, Transient
from support.hub import COMMIT, hub_with

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
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
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


ASKS: list[Callable[[Repository, Patience], object]] = [
    commit_of,
    lambda model, patience: snapshot_of(model, ["*.json"], patience),
    lambda model, patience: part_of(model, "model.safetensors", 0, 8, patience),
]


@pytest.mark.parametrize("ask", ASKS)
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
    for ask in ASKS:
        with hub_that_answers([status], error_code) as endpoint:
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            with pytest.raises(ConfigurationProblem, match=said) as raised:
                ask(MODEL, time.patience)
        assert "secret-token" not in str(raised.value)
    assert time.slept == []


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole files only"])
def test_of_weights_the_headers_alone_are_taken(ranges: bool, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = shutil.copytree(world / "model", tmp_path / "model"), tmp_path / "headers"
    for name in ("pytorch_model.bin", "modeling_own.py"):
        (model / name).write_bytes(b"not asked for")
    with hub_with(model, ranges=ranges) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        fetch_without_weights(MODEL, ["*.json", "*.jinja", "*.safetensors"], folder)
    assert stored_shapes(folder, "m") == stored_shapes(model, "m")
    whole = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in folder.iterdir()} == whole | {"model.safetensors"} == set(hub.sent)
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in whole)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == [], "a stage on this machine would take the hole for weights"


def test_a_part_of_a_file_is_what_lies_there(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (world / "model" / "model.safetensors").read_bytes()
    pinned = replace(MODEL, revision=COMMIT)
    for ranges in (True, False):
        with hub_with(world / "model", ranges=ranges) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            assert part_of(pinned, "model.safetensors", 8, 1000) == Part(data[8:1008], len(data))
            assert part_of(pinned, "model.safetensors", len(data) - 3, 10) == Part(data[-3:], len(data))


def test_a_machine_that_must_not_ask_the_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    time = Time()
    for ask in ASKS:
        with pytest.raises(ConfigurationProblem, match="HF_HUB_OFFLINE"):
            ask(MODEL, time.patience)
    assert time.slept == []
