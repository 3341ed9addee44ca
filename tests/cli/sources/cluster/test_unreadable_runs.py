"""A server with runs that this version cannot read, as a newer operator leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from kubernetes.client import Configuration

from rlhf_operator.kubernetes.api.client import Cluster
from rlhfctl.errors import NotFound
from rlhfctl.sources.cluster.connection import Connection
from rlhfctl.sources.cluster.kubeconfig import Target
from rlhfctl.sources.cluster.source import ClusterSource
from rlhfctl.sources.place import Place
from support import example_runs
from support.http_server import serving


def wire(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    found = example_runs.finished(name, "s3://models/run").to_wire()
    found["metadata"]["namespace"] = namespace
    found["spec"] |= spec
    return found


@pytest.fixture
def url() -> Iterator[str]:
    """It lists three runs, in no order, and has none of any other name."""
    runs = [wire("other", "team", iterations="three"), wire("b", "team"), wire("z", "a-team")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = self.path.partition("?")[0].endswith("/rlhfruns")
            absent = {"kind": "Status", "code": 404, "reason": "NotFound", "message": 'rlhfruns.rlhf.dev "x" not found'}
            content = json.dumps({"items": runs, "metadata": {"resourceVersion": "7"}} if listed else absent).encode()
            self.send_response(200 if listed else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as url:
        yield url


def source(url: str, said: list[str]) -> ClusterSource:
    return ClusterSource(Connection(Cluster(Configuration(host=url)), Target((), "one", url, "team")), Place(), said.append)


def test_it_is_named_beside_those_that_are_listed_by_namespace_and_name(url: str) -> None:
    found = source(url, []).runs()
    assert [(run.metadata.namespace, run.metadata.name) for run in found.runs] == [("a-team", "z"), ("team", "b")]
    assert [(run.namespace, run.name) for run in found.stored] == [("team", "other")]
    assert found.stored[0].why.startswith("run 'other' is of another version")


def test_it_is_named_where_a_run_is_looked_for_in_vain(url: str) -> None:
    with pytest.raises(NotFound, match="there is no run 'x'") as caught:
        source(url, []).load("x")
    assert "b" in caught.value.why
    assert "other" in caught.value.why
