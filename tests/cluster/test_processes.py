"""The tool starts, finds again and ends its own processes, and no others."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.addresses import free
from cluster.errors import StartError
from cluster.layout import Layout, layout, sweep
from cluster.processes import Component, Identity
from cluster.readiness import wait_for
from support.binaries import BuildError, program
from support.waiting import wait_until

SLEEP = ["sleep", "600"]
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for component in Component.all(tmp_path):
        component.kill()


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clusters"


def started(folder: Path, name: str = "sleeper", command: list[str] = SLEEP) -> Component:
    component = Component(folder, name)
    component.start([*command])
    return component


def pid_of(component: Component) -> int:
    assert component.identity is not None
    return component.identity.pid


def test_whoever_knows_the_folder_finds_a_process_again_and_ends_it(folder: Path) -> None:
    pid = pid_of(started(folder))
    [found] = Component.all(folder)
    assert pid_of(found) == pid
    found.stop()
    assert not found.running
    assert Identity.of(pid) is None


def test_a_process_that_only_has_the_same_id_is_left_alone(folder: Path) -> None:
    component = started(folder)
    stranger = pid_of(component)
    record = folder / "run" / "sleeper.json"
    content = json.loads(record.read_text())
    content["identity"]["started"] -= 1
    record.write_text(json.dumps(content))
    try:
        assert not component.running
        component.stop()
        assert Identity.of(stranger) is not None
    finally:
        os.kill(stranger, signal.SIGKILL)


def test_a_process_of_before_a_reboot_is_nobody(folder: Path) -> None:
    identity = Identity.of(os.getpid())
    assert identity is not None
    assert identity.alive
    assert not Identity(identity.pid, identity.started, "another-boot").alive


def test_a_process_that_hears_nothing_is_killed(folder: Path) -> None:
    component = started(folder, command=DEAF)
    wait_until(lambda: "deaf" in component.last_words(), "its trap")
    component.stop(patience=0.2)
    assert not component.running


def test_a_silenced_process_is_ended_too(folder: Path) -> None:
    component = started(folder)
    component.signal(signal.SIGSTOP)
    component.stop()
    assert not component.running


def test_a_restart_runs_the_same_command_and_keeps_its_place(folder: Path) -> None:
    first, second = started(folder, "first"), started(folder, "second")
    before = pid_of(first)
    first.restart()
    assert pid_of(first) != before
    # The kernel shows a command line a moment after it has replaced the program.
    line = wait_until(Path(f"/proc/{pid_of(first)}/cmdline").read_bytes, "its command line")
    assert line.split(b"\0")[:2] == [b"sleep", b"600"]
    assert [component.name for component in Component.all(folder)] == ["first", "second"]
    second.kill()


def test_a_record_that_is_not_whole_is_no_process(folder: Path) -> None:
    started(folder).kill()
    (folder / "run" / "sleeper.json").write_text('{"identity": {"pid"')
    [component] = Component.all(folder)
    assert not component.running
    component.stop()


def test_what_ends_at_once_is_named_with_the_end_of_its_log(folder: Path) -> None:
    component = started(folder, "etcd", ["sh", "-c", "echo 'unknown flag: --nonsense' >&2; exit 2"])
    with pytest.raises(StartError, match=r"etcd ended as soon as it was started") as caught:
        wait_for(component, lambda: False)
    assert "unknown flag: --nonsense" in str(caught.value)
    assert str(component.log) in str(caught.value)


def test_no_two_clusters_listen_at_one_place() -> None:
    first = free(random.Random(1))
    with socket.socket() as other:
        other.bind((first.host, first.etcd))
        other.listen()
        second = free(random.Random(1))
    assert second.host == first.host
    assert second.etcd != first.etcd
    assert second.api == first.api
    assert free(random.Random(2)).host != first.host


def test_the_cluster_of_a_test_session_that_died_is_swept_away(clusters: Path) -> None:
    session = started(clusters, "session")
    left = cluster_of(layout("pytest-left"), session.identity)
    session.kill()
    session.forget()
    component = started(left.folder)
    sweep()
    assert not component.running
    assert not left.folder.exists()
    assert list(clusters.glob("*pytest*")) == []


def test_the_clusters_of_the_living_and_those_of_up_are_not_swept_away(clusters: Path) -> None:
    living = cluster_of(layout("pytest-living"), Identity.of(os.getpid()))
    lasting = cluster_of(layout("default"), None)
    components = [started(living.folder), started(lasting.folder)]
    sweep()
    assert all(component.running for component in components)
    assert living.exists
    assert lasting.exists
    for component in components:
        component.kill()


def cluster_of(found: Layout, owner: Identity | None) -> Layout:
    found.record(free(random.Random()), owner)
    return found


def test_without_a_compiler_it_says_what_to_do(clusters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(BuildError, match=r"kubectl.*could not be built. Run: make install"):
        program("kubectl")


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_behind(
    clusters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'dial tcp: lookup proxy.golang.org: no such host' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(BuildError, match=r"GOPROXY(.|\n)*no such host"):
        program("kwok")
    assert [path for path in (clusters.parent / "bin").iterdir() if path.suffix != ".lock"] == []


def test_a_process_is_there_until_its_last_thread_is(folder: Path) -> None:
    """Else its port would still be taken when it is started again."""
    script = "import ctypes, threading, time\n"
    script += "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    script += "ctypes.CDLL(None).pthread_exit(None)\n"
    component = started(folder, command=[sys.executable, "-c", script])
    pid = pid_of(component)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "the end of its first thread")
    assert component.running
    component.kill()
    assert not component.running
