"""What the tool takes of this machine for a real node is nobody else's, and what it cannot have it says; none of it needs root."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import machine, start
from cluster.errors import StartError
from cluster.layout import layout
from support.documents import ROOT

Rows = list[dict[str, object]]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Rows]:
    """Routes and links of this machine, as `ip` tells them."""
    rows: dict[str, Rows] = {"route": [{"dst": "default"}, {"dst": "fd00::/64"}], "link": [{"ifname": "lo"}]}
    monkeypatch.setattr(machine, "_ip_json", lambda *words: rows[words[0]])
    return rows


def test_an_address_or_a_name_that_is_taken_is_not_taken_again(taken: dict[str, Rows], tmp_path: Path) -> None:
    first = machine.plan(tmp_path / "first", random.Random(1))
    assert machine.load(tmp_path / "first") == first
    assert first.gateway.startswith("198.1")
    taken["route"].append({"dst": f"{first.address}/31"})
    second = machine.plan(tmp_path / "second", random.Random(1))
    taken["route"].pop()
    taken["link"].append({"ifname": first.link})
    third = machine.plan(tmp_path / "third", random.Random(1))
    assert second.address != first.address
    assert third.link != first.link


@pytest.mark.parametrize("routes", [["198.0.0.0/8"], ["198.18.0.0/16", "198.19.0.0/16"]])
def test_where_no_address_is_free_it_says_so(taken: dict[str, Rows], tmp_path: Path, routes: list[str]) -> None:
    taken["route"] += [{"dst": route} for route in routes]
    with pytest.raises(StartError, match=r"has routes for all of 198\.18\.0\.0/15"):
        machine.plan(tmp_path, random.Random(1))


def test_a_folder_that_the_node_would_not_see_is_refused(taken: dict[str, Rows]) -> None:
    with pytest.raises(StartError, match="set RLHF_CACHE to another one"):
        machine.plan(Path("/var/lib/cache/clusters/node"), random.Random(1))


def test_a_cluster_without_a_real_node_has_no_machine(tmp_path: Path) -> None:
    assert machine.load(tmp_path) is None
    machine.end(tmp_path)


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StartError, match=r"^needs root: .*KUBECONFIG.*RLHF_SKIP_NODE=1"):
        start.up(layout("never"), size="node")


@pytest.mark.cluster
def test_whoever_leaves_them_out_is_told_so() -> None:
    of_node = str(Path(__file__).with_name("test_node.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", of_node],
        cwd=ROOT,
        env={**os.environ, "RLHF_SKIP_NODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert "RLHF_SKIP_NODE=1: the tests marked `node` were left out" in done.stdout
    assert "deselected" in done.stdout
