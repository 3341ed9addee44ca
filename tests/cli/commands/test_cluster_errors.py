"""What a person is told when a cluster cannot be reached, does not know them, or lacks the operator; and kubectl beside us."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.handle import Cluster
from rlhfctl.exits import Exit
from support.cluster_runs import ClusterRuns
from support.rlhfctl import rlhfctl

pytestmark = pytest.mark.cluster


def _words(text: str) -> str:
    return " ".join(text.split())


def _kubeconfig(path: Path, server: str, token: str = "none") -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "there",
        "contexts": [{"name": "there", "context": {"cluster": "there", "user": "me"}}],
        "clusters": [{"name": "there", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_server_that_is_away_is_named_with_the_context_that_leads_to_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{free.getsockname()[1]}"
    file = _kubeconfig(tmp_path / "conf", server)
    done = rlhfctl("list", "--kubeconfig", str(file))
    assert done.code == Exit.NO_CONNECTION
    assert f"{server} does not answer" in done.err
    assert f"context 'there' of {file}" in _words(done.err)
    assert "Connection refused" in done.err
    assert "Traceback" not in done.err


def test_credentials_that_are_not_accepted_are_said_to_be(runs: ClusterRuns) -> None:
    content = yaml.safe_load(runs.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": "nobody"}
    file = runs.folder / "nobody"
    file.write_text(yaml.safe_dump(content))
    done = runs.rlhfctl("list", "--kubeconfig", str(file))
    assert done.code == Exit.NO_CONNECTION
    assert "does not accept the credentials" in done.err


def test_what_may_not_be_done_is_told_by_verb_and_resource(runs: ClusterRuns) -> None:
    runs.create(None)
    role = f"look-{runs.namespace}"
    runs.cluster.kubectl("create", "role", role, "--verb=get", "--resource=rlhfruns.rlhf.dev", "-n", runs.namespace)
    runs.cluster.kubectl(
        "create", "rolebinding", role, f"--role={role}", f"--serviceaccount={runs.namespace}:default", "-n", runs.namespace
    )
    mine = ["--kubeconfig", str(runs.cluster.kubeconfig_of(runs.namespace, "default", runs.folder))]
    assert runs.rlhfctl("status", "tiny", *mine).code == 0
    for command, verb, resource in (
        (("list",), "list", "rlhfruns"),
        (("suspend", "tiny"), "patch", "rlhfruns"),
        (("delete", "tiny", "--yes"), "delete", "rlhfruns"),
        (("logs", "tiny"), "list", "pods"),
        (("events", "tiny"), "list", "events"),
        (("submit", str(runs.manifest("other"))), "create", "rlhfruns"),
    ):
        done = runs.rlhfctl(*command, *mine)
        assert done.code == Exit.NO_CONNECTION
        assert f"you may not {verb} {resource} in namespace '{runs.namespace}'" in _words(done.err)
        assert f"kubectl auth can-i {verb} {resource}" in _words(done.err)
    # Not to be allowed to list is no reason to keep quiet about what is not found.
    assert runs.rlhfctl("status", "tinny", *mine).code == Exit.NOT_FOUND


def test_without_the_crd_it_says_how_to_install_the_operator(runs: ClusterRuns) -> None:
    """A kubeconfig that leads to a part of the API that serves no RLHFRun answers as a cluster without the CRD does."""
    content = yaml.safe_load(runs.kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] += "/version"
    file = runs.folder / "bare"
    file.write_text(yaml.safe_dump(content))
    done = runs.rlhfctl("list", "--kubeconfig", str(file))
    assert done.code == Exit.NO_CONNECTION
    assert "does not know the kind RLHFRun" in done.err
    assert "helm upgrade --install rlhf-operator" in _words(done.err)


def test_context_and_namespace_are_those_that_kubectl_would_take(cluster: Cluster, crd: None, tmp_path: Path) -> None:
    """KUBECONFIG with several files: the contexts in one, the cluster and the user in another; kubectl is asked the same."""
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    names = {"cluster": content["clusters"][0]["name"], "user": content["users"][0]["name"]}
    contexts = [{"name": name, "context": {**names, "namespace": f"team-{name}"}} for name in ("a", "b")]
    first = tmp_path / "contexts"
    first.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": contexts, "current-context": "b"}))
    second = tmp_path / "rest"
    second.write_text(yaml.safe_dump({**content, "current-context": "a"}))
    env = {"KUBECONFIG": f"{first}:{tmp_path / 'absent'}:{second}", "HOME": str(tmp_path)}
    for options in ((), ("--context", "a"), ("-n", "mine"), ("--context", "a", "-n", "mine")):
        asked = subprocess.run(
            [cluster.binaries.kubectl, "get", "rlhf", *options], env=env, capture_output=True, text=True, check=True
        )
        # "No resources found in team-b namespace."
        namespace = asked.stderr.split(" in ")[1].split()[0]
        assert rlhfctl("list", *options, env=env).err == f"no runs in namespace {namespace!r}\n"
