"""The client of an API server: pages, watches, errors; what is repeated, and what never is."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kubernetes.client import Configuration

from cluster.handle import Cluster as Handle
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotConfigured,
    NotFound,
    NotLeader,
    Unauthorized,
    Unavailable,
)
from rlhf_operator.kubernetes.api.resources import CONFIG_MAPS, JOBS, PODS, RUNS, SERVICES, Resource

SECRETS = Resource("v1", "Secret", "secrets")
real = pytest.mark.cluster


@pytest.fixture
def client(cluster: Handle, namespace: str) -> Cluster:
    return Cluster.connect(cluster.kubeconfig, namespace=namespace)


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name, "labels": {"test": "yes"}}, "data": data}


@real
def test_a_list_comes_in_pages_of_one_moment(client: Cluster, namespace: str) -> None:
    for number in range(7):
        client.create(CONFIG_MAPS, namespace, config_map(f"c-{number}"))
    pages = client.pages(CONFIG_MAPS, namespace, label_selector="test=yes", limit=3)
    first = next(pages)
    client.create(CONFIG_MAPS, namespace, config_map("later"))
    rest = list(pages)
    assert [len(page.items) for page in (first, *rest)] == [3, 3, 1]
    assert {page.resource_version for page in rest} == {first.resource_version}
    assert len(client.list(CONFIG_MAPS, namespace, label_selector="test=yes")) == 8
    assert client.list(CONFIG_MAPS, namespace, field_selector="metadata.name=later")[0]["metadata"]["name"] == "later"


@real
def test_a_watch_tells_what_comes_changes_and_goes(client: Cluster, namespace: str) -> None:
    version = next(client.pages(CONFIG_MAPS, namespace)).resource_version
    made = client.create(CONFIG_MAPS, namespace, config_map("c"))
    client.merge_patch(CONFIG_MAPS, namespace, "c", {"data": {"a": "1"}})
    client.delete(CONFIG_MAPS, namespace, "c", uid=made["metadata"]["uid"])
    with closing(client.watch(CONFIG_MAPS, namespace, resource_version=version, label_selector="test=yes")) as events:  # type: ignore[type-var]
        told = [next(events) for _ in range(3)]
    assert [event.type for event in told] == ["ADDED", "MODIFIED", "DELETED"]
    assert told[1].object["data"] == {"a": "1"}


@real
def test_a_watch_ends_when_its_time_is_over(client: Cluster, namespace: str) -> None:
    client.create(CONFIG_MAPS, namespace, config_map("c"))
    told = list(client.watch(CONFIG_MAPS, namespace, label_selector="test=yes", seconds=1))
    assert [event.type for event in told if event.type != "BOOKMARK"] == ["ADDED"]


@real
def test_a_watch_from_a_version_that_is_forgotten_must_begin_again(client: Cluster, namespace: str) -> None:
    with pytest.raises(Gone, match="too old"):
        list(client.watch(CONFIG_MAPS, namespace, resource_version="1", seconds=5))


@real
def test_refusals_have_the_servers_words(client: Cluster, namespace: str) -> None:
    made = client.create(CONFIG_MAPS, namespace, config_map("c"))
    with pytest.raises(AlreadyExists, match='configmaps "c" already exists'):
        client.create(CONFIG_MAPS, namespace, config_map("c"))
    with pytest.raises(NotFound, match='configmaps "absent" not found'):
        client.get(CONFIG_MAPS, namespace, "absent")
    with pytest.raises(Conflict, match="does not match the UID in record"):
        client.delete(CONFIG_MAPS, namespace, "c", uid="another")
    client.merge_patch(CONFIG_MAPS, namespace, "c", {"data": {"a": "1"}})
    old = {"metadata": {"name": "c", "resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
    with pytest.raises(Conflict, match="has been modified"):
        client.apply(CONFIG_MAPS, namespace, old)
    with pytest.raises(Invalid) as refused:
        client.create(SERVICES, namespace, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}], "type": "No"}})
    assert {cause.field for cause in refused.value.causes} >= {"spec.ports[0].port", "spec.type"}
    assert client.get(CONFIG_MAPS, namespace, "c")["data"] == {"a": "1"}


@real
def test_who_may_not_or_is_unknown_is_told_so(cluster: Handle, namespace: str, tmp_path: Path) -> None:
    kubeconfig = cluster.kubeconfig_of(namespace, "default", tmp_path)
    guest = Cluster.connect(kubeconfig)
    assert guest.namespace == namespace
    with pytest.raises(Forbidden, match="cannot list resource") as refused:
        guest.list(SECRETS, namespace)
    assert not refused.value.exceeded_quota
    unknown = json.loads(kubeconfig.read_text())
    unknown["users"][0]["user"]["token"] = "nobody's"
    kubeconfig.write_text(json.dumps(unknown))
    with pytest.raises(Unauthorized):
        Cluster.connect(kubeconfig).list(PODS, namespace)


@real
def test_who_is_no_leader_writes_nothing(client: Cluster, namespace: str) -> None:
    client.may_write = lambda: False
    writes: list[Callable[[], object]] = [
        lambda: client.create(CONFIG_MAPS, namespace, config_map("c")),
        lambda: client.apply(CONFIG_MAPS, namespace, config_map("c")),
        lambda: client.merge_patch(CONFIG_MAPS, namespace, "c", {}),
        lambda: client.delete(CONFIG_MAPS, namespace, "c"),
    ]
    for write in writes:
        with pytest.raises(NotLeader):
            write()
    assert client.list(CONFIG_MAPS, namespace, label_selector="test=yes") == []


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """A server that is none of Kubernetes: it gives these answers, one a request, and the last one for ever."""
    left, requests = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            requests.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in {"Content-Length": "2", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def at(url: str, slept: list[float]) -> Cluster:
    return Cluster(Configuration(host=url), sleep=slept.append)


def test_a_read_is_repeated_while_the_server_is_away_and_waits_as_it_is_told() -> None:
    slept: list[float] = []
    with answering((503, {}), (429, {"Retry-After": "1"}), (200, {})) as (url, requests):
        assert at(url, slept).get(RUNS, "team", "tiny") == {}
    assert (requests, slept) == (["GET"] * 3, [0.1, 1.0])


def test_a_read_is_given_up_in_the_end() -> None:
    slept: list[float] = []
    with answering((500, {})) as (url, requests), pytest.raises(Unavailable) as gave_up:
        at(url, slept).get(RUNS, "team", "tiny")
    assert (len(requests), len(slept), gave_up.value.status) == (4, 3, 500)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_write_is_sent_once(status: int) -> None:
    slept: list[float] = []
    with answering((status, {})) as (url, requests):
        client = at(url, slept)
        writes: list[Callable[[], object]] = [lambda: client.create(JOBS, "team", {}), lambda: client.delete(JOBS, "team", "j")]
        for write in writes:
            with pytest.raises(Unavailable):
                write()
    assert (requests, slept) == (["POST", "DELETE"], [])


def test_a_server_that_is_not_there_is_named() -> None:
    with answering((200, {})) as (url, _):
        pass
    with pytest.raises(Unavailable, match=f"{url} cannot be reached") as away:
        at(url, []).get(RUNS, "team", "tiny")
    assert away.value.status == 0


def test_a_kubeconfig_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=str(tmp_path / "absent")):
        Cluster.connect(tmp_path / "absent")
    (tmp_path / "empty").write_text("")
    with pytest.raises(NotConfigured, match=str(tmp_path / "empty")):
        Cluster.connect(tmp_path / "empty")


def test_a_read_that_has_a_limit_is_given_up_then_and_not_repeated() -> None:
    """As the Lease is read: a holder that hangs for longer than its Lease would not know that it is lost."""
    slept: list[float] = []
    with answering((503, {})) as (url, requests), pytest.raises(Unavailable):
        Cluster(Configuration(host=url), read_seconds=2.0, sleep=slept.append).get(PODS, "a", "b")
    assert (requests, slept) == (["GET"], [])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            Cluster(Configuration(host=f"http://127.0.0.1:{silent.getsockname()[1]}"), read_seconds=0.2).get(PODS, "a", "b")
        assert time.monotonic() - begun < 10
