"""list, status, logs, events of runs in a cluster: what a person and a script see."""

from __future__ import annotations

import json

import pytest
import yaml

from rlhf_api import RLHFRun
from rlhf_api.resource.storage import Storage
from rlhfctl.exits import Exit
from support import example_runs
from support.cluster_runs import STORE, ClusterRuns

pytestmark = pytest.mark.cluster


def _words(text: str) -> str:
    return " ".join(text.split())


def test_list_shows_the_runs_of_the_context_s_namespace(runs: ClusterRuns) -> None:
    assert "no runs in namespace" in runs.rlhfctl("list").err
    runs.create(example_runs.finished, "quickstart")
    runs.create(example_runs.at_work, "working")
    done = runs.rlhfctl("list")
    assert (done.code, done.err) == (0, "")
    header, *rows = done.out.splitlines()
    assert header.split()[:2] == ["NAME", "PHASE"]
    assert [row.split()[:4] for row in rows] == [["quickstart", "✓", "Succeeded", "3/3"], ["working", "●", "Running", "2/3"]]
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_list_of_all_namespaces_says_which(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished, "quickstart")
    with runs.cluster.namespace() as other:
        beside = ClusterRuns(runs.cluster, other, runs.folder)
        beside.create(example_runs.at_work, "working")
        lines = [line.split()[:2] for line in runs.rlhfctl("list", "-A").out.splitlines()]
        assert lines[0] == ["NAMESPACE", "NAME"]
        assert [runs.namespace, "quickstart"] in lines
        assert [other, "working"] in lines
        assert [line.split()[0] for line in runs.rlhfctl("list", "-n", other).out.splitlines()] == ["NAME", "working"]


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_list_and_status_print_whole_objects(runs: ClusterRuns, output: str, load: object) -> None:
    runs.create(example_runs.finished, "quickstart")
    whole = load(runs.rlhfctl("status", "quickstart", "-o", output).out)  # type: ignore[operator]
    assert whole["metadata"]["uid"] == runs.get("quickstart")["metadata"]["uid"]
    assert RLHFRun.model_validate(whole).status == example_runs.finished("quickstart", STORE).status
    listed = load(runs.rlhfctl("list", "-o", output).out)  # type: ignore[operator]
    assert (listed["apiVersion"], listed["kind"], listed["items"]) == ("v1", "List", [whole])


def test_names_are_as_kubectl_spells_them(runs: ClusterRuns) -> None:
    runs.create(None, "quickstart")
    assert runs.rlhfctl("list", "-o", "name").out == runs.cluster.kubectl("get", "rlhf", "-n", runs.namespace, "-o", "name")


def test_status_shows_the_run_as_it_does_a_local_one(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished, "quickstart")
    done = runs.rlhfctl("status", "quickstart")
    assert (done.code, done.err) == (0, "")
    assert "quickstart  ✓ Succeeded  3 of 3 iterations" in done.out
    assert "\x1b[" not in done.out


def test_an_unknown_run_is_not_found_and_the_nearest_is_named(runs: ClusterRuns) -> None:
    runs.create(None, "quickstart")
    for command in ("status", "logs", "events", "wait", "suspend", "delete"):
        done = runs.rlhfctl(command, "quikstart")
        assert done.code == Exit.NOT_FOUND
        assert f"there is no run 'quikstart' in namespace '{runs.namespace}'" in _words(done.err)
        assert "did you mean 'quickstart'?" in done.err


def test_a_run_that_nobody_takes_up_says_where_to_look(runs: ClusterRuns) -> None:
    from datetime import UTC, datetime, timedelta

    from rlhfctl.sources.cluster.source import ClusterSource
    from rlhfctl.sources.source import Sight

    run = RLHFRun.model_validate(runs.create(None, "fresh") | {"metadata": {"name": "fresh", "namespace": runs.namespace}})
    old = run.metadata.model_copy(update={"creation_timestamp": datetime.now(UTC) - timedelta(minutes=5)})
    lines = ClusterSource.driver_lines(None, Sight(run.model_copy(update={"metadata": old}), rests=False))  # type: ignore[arg-type]
    assert "no operator has taken it up" in lines[1]
    assert "no operator" not in runs.rlhfctl("status", "fresh").out


def test_wait_mirrors_the_run_s_result(runs: ClusterRuns) -> None:
    runs.create(example_runs.finished, "quickstart")
    runs.create(example_runs.failed, "broken")
    assert runs.rlhfctl("wait", "quickstart").code == 0
    broken = runs.rlhfctl("wait", "broken")
    assert broken.code == Exit.RUN_FAILED
    assert "DiskFull" in broken.err
    assert "rlhfctl logs broken" in broken.err


def test_wait_gives_up_when_its_time_is_over_and_says_how_to_come_back(runs: ClusterRuns) -> None:
    runs.create(example_runs.at_work, "working")
    done = runs.rlhfctl("wait", "working", "-n", runs.namespace, "--timeout", "0.5")
    assert done.code == Exit.TIMEOUT
    assert "still Running" in done.err
    assert f"rlhfctl status working -n {runs.namespace}" in done.err


def test_logs_are_those_of_the_pods_oldest_first(runs: ClusterRuns) -> None:
    runs.create(None, sample={"shards": 2})
    first = runs.pod("preflight", log="store is writable\n")
    shards = [runs.pod("sample", iteration=1, index=index, log=f"{index} of 2\nsealed\n") for index in (0, 1)]
    for pod in (first, *shards):
        runs.start(pod)
        runs.end(pod)
    done = runs.rlhfctl("logs", "tiny")
    assert done.code == 0
    assert done.out == "store is writable\nshard 0 | 0 of 2\nshard 0 | sealed\nshard 1 | 1 of 2\nshard 1 | sealed\n"
    assert done.err == "==> preflight, attempt 1 <==\n==> sample, iteration 1, attempt 1 <==\n"
    assert runs.rlhfctl("logs", "tiny", "--stage", "preflight").out == "store is writable\n"
    assert runs.rlhfctl("logs", "tiny", "--iteration", "1").out.startswith("shard 0 | 0 of 2\n")


def test_a_pod_that_cannot_start_says_why(runs: ClusterRuns) -> None:
    runs.create(None)
    pod = runs.pod("preflight")
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    runs.set_pod(pod, "Pending", {"waiting": waiting})
    done = runs.rlhfctl("logs", "tiny")
    assert f"pod {pod} has not started: ImagePullBackOff: Back-off pulling image" in _words(done.err)
    assert done.code == Exit.NOT_FOUND


def test_a_log_that_the_node_does_not_give_is_said_so_and_the_others_are_shown(runs: ClusterRuns) -> None:
    runs.create(None)
    gone = runs.pod("preflight", node="no-such-node")
    pod = runs.pod("sft", log="loss 0.7\n")
    for name in (gone, pod):
        runs.start(name)
    done = runs.rlhfctl("logs", "tiny")
    assert done.out == "loss 0.7\n"
    assert f"the log of pod {gone} cannot be read" in _words(done.err)


def test_events_are_of_the_run_and_its_jobs_and_pods_oldest_first(runs: ClusterRuns) -> None:
    uid = runs.create(None)["metadata"]["uid"]
    runs.event("Pod", "tiny-i1-sample-1-0-abcde", "FailedScheduling", "0/3 nodes are available", second=3, type="Warning", count=7)
    runs.event("Job", "tiny-i1-sample-1", "SuccessfulCreate", "Created pod", second=2)
    runs.event("RLHFRun", "tiny", "StageStarted", "Stage sample of iteration 1 started.", second=1, uid=uid)
    runs.event("Job", "tiny-more-i1-sample-1", "SuccessfulCreate", "of another run", second=1)
    runs.event("RLHFRun", "tiny", "StageStarted", "of a former run of this name", second=1, uid="0f0e")
    done = runs.rlhfctl("events", "tiny")
    assert done.code == 0
    assert done.out.splitlines() == [
        "  2099-01-01T00:00:01Z StageStarted run",
        "    Stage sample of iteration 1 started.",
        "  2099-01-01T00:00:02Z SuccessfulCreate job/tiny-i1-sample-1",
        "    Created pod",
        "! 2099-01-01T00:00:03Z FailedScheduling (7 times) pod/tiny-i1-sample-1-0-abcde",
        "    0/3 nodes are available",
    ]


@pytest.mark.s3
def test_report_is_made_of_the_run_in_the_cluster_and_the_store(runs: ClusterRuns, s3_storage: Storage) -> None:
    runs.create(example_runs.finished, "quickstart", storage=s3_storage.to_wire())
    done = runs.rlhfctl("report", "quickstart")
    assert (done.code, done.out) == (0, "quickstart-report.html\n"), done.err
    assert "π3" in (runs.folder / "quickstart-report.html").read_text()


def test_completion_offers_the_runs_of_the_cluster(runs: ClusterRuns) -> None:
    from rlhfctl.sources.cluster.source import names_within
    from rlhfctl.sources.place import Place

    runs.create(None, "quickstart")
    runs.create(None, "quick-two")
    place = Place(kubeconfig=str(runs.kubeconfig))
    assert names_within(place, 30) == ["quick-two", "quickstart"]
    assert names_within(Place(kubeconfig="/absent"), 30) == []
