"""Requests of the watches: heartbeats while the server is away, and a full list after each list of theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kopf
import pytest
from kubernetes.client import Configuration

from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import JOBS, PODS, RUNS
from rlhf_operator.kubernetes.telemetry.health import Heartbeats
from rlhf_operator.kubernetes.watch.watches import Watches, kopf_settings


class Bench:
    """A server that answers everything alike, and requests to it as kopf makes them."""

    def __init__(self) -> None:
        self.code, self.now, self.lists = 200, 0.0, 0
        self.heartbeats = Heartbeats(lambda: self.now)
        self.watching = threading.Event()
        bench = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(bench.code)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.watches = Watches(
            Cluster(Configuration(host=f"http://127.0.0.1:{self.server.server_address[1]}")),
            kopf.OperatorRegistry(),
            kopf_settings(70, 240),
            namespaces=(),
            heartbeats=self.heartbeats,
            answered=lambda *_: None,
            listed=self.listed,
            watching=self.watching,
        )

    def listed(self) -> None:
        self.lists += 1

    def get(self, path: str, code: int = 200) -> None:
        async def request() -> None:
            found = await self.watches._login()
            async with found.aiohttp_session as session, session.get(f"{found.server}{path}") as response:
                assert response.status == code

        self.code = code
        asyncio.run(request())


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.server.shutdown()
    bench.server.server_close()


def test_a_watch_that_cannot_begin_while_the_server_is_away_lives(bench: Bench) -> None:
    bench.heartbeats.expect("watch of jobs", 540)
    bench.now = 600
    bench.get(JOBS.path(None), 503)
    assert bench.heartbeats.silent() == {}
    bench.now = 1200
    bench.get(f"{JOBS.path(None)}?watch=true")
    assert bench.heartbeats.silent() == {}


def test_each_list_of_a_watch_asks_for_a_full_one_though_it_is_empty(bench: Bench) -> None:
    bench.get(JOBS.path(None))
    assert bench.lists == 1
    bench.get(f"{JOBS.path(None)}?watch=true")
    bench.get(JOBS.path(None), 403)
    bench.get("/apis/batch/v1")
    assert bench.lists == 1


def test_the_watches_have_begun_when_each_was_answered_a_refused_one_too(bench: Bench) -> None:
    bench.get(JOBS.path(None), 503)
    bench.get(PODS.path(None), 403)
    bench.get(RUNS.path(None))
    assert not bench.watching.is_set()
    bench.get(JOBS.path(None))
    assert bench.watching.is_set()


def test_watches_that_end_as_they_begin_do_not_live(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were started again and again, every two seconds, and each start counted for a beat."""

    async def ends(**_: object) -> None:
        bench.now += 2
        if bench.now > 600:
            bench.watches.stop()
        raise KeyError("it has no name")

    monkeypatch.setattr(kopf, "operator", ends)
    monkeypatch.setattr("rlhf_operator.kubernetes.watch.watches._RESTART_SECONDS", 0.0)
    ready = threading.Event()
    ready.set()
    bench.watches.run(ready)
    assert {"watch of jobs", "watch of pods", "watch of rlhfruns"} <= bench.heartbeats.silent().keys()


def test_kopf_does_not_ask_for_the_users_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user is a number: kopf, which would name the operator after it, ended with a KeyError."""
    given: dict[str, object] = {}

    async def ends(**options: object) -> None:
        given.update(options)
        bench.watches.stop()

    monkeypatch.setattr(kopf, "operator", ends)
    ready = threading.Event()
    ready.set()
    bench.watches.run(ready)
    assert given["identity"]
