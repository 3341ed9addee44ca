"""Answers of an API server that are seldom met."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cluster.api import Api
from cluster.handle import _request
from rlhf_api.words import STAGE_ARTIFACT


class Busy(BaseHTTPRequestHandler):
    """Says twice to come back, as a server does whose storage of a CRD begins."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        status = 429 if self.asked <= 2 else 200
        text = json.dumps({"kind": "Status", "reason": "TooManyRequests", "message": "storage is (re)initializing"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_that_says_to_come_back_is_asked_again(server: HTTPServer, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    kubeconfig.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}))
    assert Api(kubeconfig).get("/apis")["kind"] == "Status"
    assert Busy.asked == 3


def test_a_request_that_nobody_was_seen_to_make_is_in_the_audit_log_too() -> None:
    seen = _request({"verb": "get", "objectRef": {"resource": "pods"}, "responseStatus": {"code": 401}})
    assert (seen.user, seen.status) == ("", 401)


def test_simulated_pods_of_every_stage_that_seals_say_that_they_sealed() -> None:
    template = (Path(__file__).with_name("templates") / "result.yaml").read_text()
    missing = [stage for stage, kind in STAGE_ARTIFACT.items() if f'"{stage}" "{kind}"' not in template]
    assert missing == []
