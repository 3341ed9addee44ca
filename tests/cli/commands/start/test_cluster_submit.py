"""submit, and what changes a run in a cluster: suspend, resume, cancel, approve, delete."""

from __future__ import annotations

import pytest
import yaml

from rlhfctl.commands.deleting import wait_until_gone
from rlhfctl.display import terminal
from rlhfctl.exits import Exit
from rlhfctl.sources.cluster.source import connect
from rlhfctl.sources.place import Place
from rlhfctl.sources.source import target_of
from support import example_runs
from support.cluster_runs import STORE, ClusterRuns
from support.rlhfctl import on_terminal
from support.waiting import wait_until

pytestmark = pytest.mark.cluster


def _words(text: str) -> str:
    return " ".join(text.split())


def test_submit_creates_the_run_and_says_how_to_follow_it(runs: ClusterRuns) -> None:
    done = runs.rlhfctl("submit", str(runs.manifest()))
    assert (done.code, done.out) == (0, "rlhfrun.rlhf.dev/tiny created\n")
    assert "follow it: rlhfctl logs tiny -f" in done.err
    stored = runs.get()
    assert stored["spec"]["storage"] == {"url": STORE} | stored["spec"]["storage"]
    assert {entry["manager"] for entry in stored["metadata"]["managedFields"]} == {"rlhfctl"}


def test_the_same_manifest_again_changes_nothing(runs: ClusterRuns) -> None:
    file = str(runs.manifest())
    runs.rlhfctl("submit", "-f", file)
    before = runs.get()
    done = runs.rlhfctl("submit", "-f", file)
    assert (done.code, done.out) == (0, "rlhfrun.rlhf.dev/tiny unchanged\n")
    assert runs.get() == before


def test_what_may_change_is_changed_and_what_others_said_stays(runs: ClusterRuns) -> None:
    runs.rlhfctl("submit", str(runs.manifest(queue={"name": "gpu"})))
    runs.rlhfctl("suspend", "tiny")
    changed = runs.manifest(iterations=5, queue={"name": "gpu", "priorityClass": "high"}, ttlSecondsAfterFinished=60)
    assert runs.rlhfctl("submit", str(changed)).out == "rlhfrun.rlhf.dev/tiny configured\n"
    spec = runs.get()["spec"]
    assert (spec["iterations"], spec["queue"]["priorityClass"], spec["suspend"]) == (5, "high", True)
    assert runs.rlhfctl("submit", str(runs.manifest(iterations=5, queue={"name": "gpu"}))).code == 0
    spec = runs.get()["spec"]
    assert ("priorityClass" in spec["queue"], "ttlSecondsAfterFinished" in spec) == (False, False)


def test_a_change_of_what_cannot_change_is_a_conflict_that_names_the_fields(runs: ClusterRuns) -> None:
    runs.rlhfctl("submit", str(runs.manifest()))
    done = runs.rlhfctl("submit", str(runs.manifest(seed=7, iterations=2)))
    assert done.code == Exit.CONFLICT
    assert "run 'tiny' exists, and the manifest changes spec.iterations, spec.seed" in _words(done.err)


def test_a_run_that_has_ended_is_not_started_again(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished)
    assert runs.rlhfctl("submit", str(runs.manifest())).out == "rlhfrun.rlhf.dev/tiny unchanged\n"
    done = runs.rlhfctl("submit", str(runs.manifest(iterations=5)))
    assert done.code == Exit.CONFLICT
    assert "has ended (Succeeded), and the manifest changes spec.iterations" in _words(done.err)
    assert "rlhfctl delete tiny" in done.err


def test_every_problem_is_told_before_anything_is_sent(runs: ClusterRuns) -> None:
    done = runs.rlhfctl("submit", str(runs.manifest(iterations=0, seed=-1)))
    assert done.code == Exit.REFUSED
    assert "spec.iterations" in done.err
    assert "spec.seed" in done.err
    assert runs.find() is None


def test_what_the_api_server_refuses_is_told_in_its_words(runs: ClusterRuns) -> None:
    """A manifest that passes validation here: an admission policy of the platform's refuses it."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"few-{runs.namespace}"},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": runs.namespace}},
                "resourceRules": [
                    {"apiGroups": ["rlhf.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["rlhfruns"]}
                ],
            },
            "validations": [{"expression": "object.spec.iterations <= 4", "message": "this team runs four iterations at most"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"few-{runs.namespace}"},
        "spec": {"policyName": f"few-{runs.namespace}", "validationActions": ["Deny"]},
    }
    runs.cluster.apply(policy, binding)
    try:
        file = str(runs.manifest(iterations=5))
        # A policy is in force a moment after it was made.
        wait_until(lambda: runs.rlhfctl("submit", file, "--dry-run", "server").code != 0, "the policy")
        done = runs.rlhfctl("submit", file)
        assert done.code == Exit.REFUSED
        assert "this team runs four iterations at most" in _words(done.err)
        assert "Traceback" not in done.err
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            runs.cluster.kubectl("delete", kind, f"few-{runs.namespace}")


def test_dry_runs_store_nothing(runs: ClusterRuns) -> None:
    file = str(runs.manifest())
    for kind in ("client", "server"):
        done = runs.rlhfctl("submit", file, "--dry-run", kind)
        assert (done.code, done.out) == (0, f"rlhfrun.rlhf.dev/tiny created ({kind} dry run)\n")
    assert runs.find() is None
    runs.rlhfctl("submit", file)
    before = runs.get()
    more = str(runs.manifest(iterations=5))
    assert runs.rlhfctl("submit", more, "--dry-run", "server").out == "rlhfrun.rlhf.dev/tiny configured (server dry run)\n"
    assert runs.get() == before


def test_submit_prints_what_is_stored(runs: ClusterRuns) -> None:
    done = runs.rlhfctl("submit", "-", "-o", "yaml", stdin=runs.manifest().read_text())
    assert yaml.safe_load(done.out)["metadata"]["uid"] == runs.get()["metadata"]["uid"]
    assert runs.rlhfctl("submit", str(runs.manifest("two")), "-o", "name").out == "rlhfrun.rlhf.dev/two\n"


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_goes_before_it_is_watched_is_seen_to_be_gone(runs: ClusterRuns, again: bool) -> None:
    """`delete --wait` would watch for ever for somebody who is gone, or for the next of that name."""
    runs.create(example_runs.finished)
    source = connect(Place(kubeconfig=str(runs.kubeconfig)), terminal.say)
    run = target_of(source, "tiny")
    runs.cluster.kubectl("delete", "rlhf", "tiny", "-n", runs.namespace, "--wait")
    if again:
        runs.create(example_runs.at_work)
    wait_until_gone(source, run, timeout=30)


def test_an_exported_run_can_be_submitted_again(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished)
    exported = runs.rlhfctl("status", "tiny", "-o", "yaml").out
    runs.rlhfctl("delete", "tiny", "--yes", "--wait")
    assert runs.rlhfctl("submit", "-", stdin=exported).out == "rlhfrun.rlhf.dev/tiny created\n"
    assert "status" not in runs.get()


def test_the_manifest_s_namespace_counts_and_must_be_the_one_that_is_asked_for(runs: ClusterRuns) -> None:
    with runs.cluster.namespace() as other:
        file = str(runs.manifest(namespace=other))
        refused = runs.rlhfctl("submit", file, "-n", runs.namespace)
        assert refused.code == Exit.USAGE
        assert f"give -n {other}" in refused.err
        done = runs.rlhfctl("submit", file)
        assert done.code == 0
        assert f"rlhfctl logs tiny -n {other} -f" in _words(done.err)
        assert runs.rlhfctl("list", "-n", other, "-o", "name").out == "rlhfrun.rlhf.dev/tiny\n"


def test_a_namespace_that_is_not_there_is_not_found(runs: ClusterRuns) -> None:
    done = runs.rlhfctl("submit", str(runs.manifest()), "-n", "nowhere")
    assert done.code == Exit.NOT_FOUND
    assert 'namespaces "nowhere" not found' in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one manifest"),
        (("a.yaml", "-f", "b.yaml"), "not both"),
        (("a.yaml", "--dry-run", "server", "--wait"), "dry run"),
        (("a.yaml", "--timeout", "3"), "--timeout is for --wait"),
        (("a.yaml", "--wait", "--follow"), "--wait or --follow"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(runs: ClusterRuns, arguments: tuple[str, ...], said: str) -> None:
    done = runs.rlhfctl("submit", *arguments)
    assert done.code == Exit.USAGE
    assert said in _words(done.err)


def test_suspend_resume_and_cancel_write_the_spec(runs: ClusterRuns) -> None:
    runs.create(example_runs.at_work)
    done = runs.rlhfctl("suspend", "tiny")
    assert (done.code, done.out, done.err) == (0, "", "tiny is to be suspended; the operator carries it out\n")
    assert runs.get()["spec"]["suspend"] is True
    assert runs.rlhfctl("resume", "tiny").code == 0
    assert runs.get()["spec"]["suspend"] is False
    assert runs.rlhfctl("cancel", "tiny").code == 0
    assert runs.get()["spec"]["cancel"] is True


def test_approve_appends_the_gate_that_waits(runs: ClusterRuns) -> None:
    runs.create(example_runs.paused)
    done = runs.rlhfctl("approve", "tiny")
    assert done.code == 0
    assert "gate 'length' of iteration 1 is approved" in _words(done.err)
    assert runs.get()["spec"]["approvals"] == [{"gate": "length", "iteration": 1}]


@pytest.mark.parametrize("command", ["suspend", "resume", "cancel"])
def test_a_run_that_has_ended_cannot_be_changed(runs: ClusterRuns, command: str) -> None:
    runs.create(example_runs.finished)
    assert runs.rlhfctl(command, "tiny").code == Exit.CONFLICT


def test_delete_asks_and_without_anybody_to_ask_refuses(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished)
    done = runs.rlhfctl("delete", "tiny")
    assert done.code == Exit.USAGE
    assert "rlhfctl delete tiny --yes" in done.err
    assert runs.find() is not None


@pytest.mark.parametrize(("answer", "code", "there"), [("n", Exit.INTERRUPTED, True), ("y", Exit.OK, False)])
def test_on_a_terminal_delete_asks_and_says_what_stays(runs: ClusterRuns, answer: str, code: Exit, there: bool) -> None:
    runs.create(example_runs.at_work)
    done, shown = on_terminal("delete", "tiny", keys=f"{answer}\n", env=runs.env)
    assert f"its artifacts stay in {STORE}" in _words(shown)
    assert "it is Running and stops after a checkpoint" in _words(shown)
    assert "delete it? [y/N]" in shown
    assert done == code, shown
    if there:
        assert runs.find() is not None
    else:
        wait_until(lambda: runs.find() is None, "its end")


def test_delete_removes_the_run_and_its_pods_and_says_what_stays(runs: ClusterRuns) -> None:
    uid = runs.create(example_runs.at_work)["metadata"]["uid"]
    owner = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "name": "tiny", "uid": uid, "blockOwnerDeletion": True}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
    runs.cluster.apply(child, namespace=runs.namespace)
    done = runs.rlhfctl("delete", "tiny", "--yes", "--wait")
    assert done.code == 0
    assert f"its artifacts stay in {STORE}" in _words(done.err)
    assert "run 'tiny' is gone" in done.err
    assert runs.find() is None
    assert runs.cluster.api.find(f"/api/v1/namespaces/{runs.namespace}/configmaps/child") is None


def test_delete_gives_up_waiting_when_its_time_is_over(runs: ClusterRuns) -> None:
    runs.create(example_runs.at_work)
    runs.cluster.kubectl(
        "patch", "rlhf", "tiny", "-n", runs.namespace, "--type=merge", "-p", '{"metadata":{"finalizers":["test.dev/x"]}}'
    )
    done = runs.rlhfctl("delete", "tiny", "--yes", "--wait", "--timeout", "0.5")
    assert done.code == Exit.TIMEOUT
    assert "it is being deleted" in runs.rlhfctl("status", "tiny").out
    conflict = runs.rlhfctl("submit", str(runs.manifest()))
    assert conflict.code == Exit.CONFLICT
    assert "is being deleted" in conflict.err
    runs.cluster.kubectl("patch", "rlhf", "tiny", "-n", runs.namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
