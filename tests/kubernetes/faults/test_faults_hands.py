"""Somebody deletes by hand what the operator made, or the run itself, in the middle of it.

Whatever is deleted: the run ends well, no artifact is computed twice, and no Job is made twice for one attempt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.api import Json
from cluster.handle import Cluster
from support.crash_points import WHOLE, World, world
from support.operator_forks import Forks
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

SPEC = {**WHOLE, "iterations": 1}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@contextmanager
def operated(cluster: Cluster, forks: Forks, folder: Path) -> Iterator[World]:
    with world(cluster, folder, SPEC) as here, here.operator(forks):
        yield here


def ended_well(here: World) -> None:
    here.until_finished()
    assert here.run.status["phase"] == "Succeeded", here.run.status["message"]
    assert list(here.problems()) == []


def at_work(here: World, stage: str) -> Json:
    """The Job of the stage, once all its pods run. The player lets them hang."""

    def running() -> Json | None:
        here.player.wait(0.0)
        for job in here.run.jobs():
            pods = [pod for pod in here.run.pods() if owner(pod) == job["metadata"]["uid"] and pod["status"]["phase"] == "Running"]
            if job["metadata"]["labels"]["rlhf.dev/stage"] == stage and len(pods) == job["spec"]["parallelism"]:
                return job
        return None

    found = wait_until(running, f"{stage} at work", seconds=90)
    assert found is not None
    return found


def owner(obj: Json) -> str:
    return str(obj["metadata"]["ownerReferences"][0]["uid"])


def path(here: World, root: str, plural: str, obj: Json | None = None) -> str:
    found = f"{root}/namespaces/{here.namespace}/{plural}"
    return found if obj is None else f"{found}/{obj['metadata']['name']}"


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
def test_a_job_deleted_at_work(cluster: Cluster, forks: Forks, tmp_path: Path, policy: str) -> None:
    with operated(cluster, forks, tmp_path) as here:
        here.player.plan("train-1", "hang", "hang")
        here.create()
        job = at_work(here, "train")
        cluster.api.delete(path(here, "/apis/batch/v1", "jobs", job), propagationPolicy=policy)
        ended_well(here)


@pytest.mark.parametrize("stage", ["sample", "train"])
def test_pods_deleted_at_work(cluster: Cluster, forks: Forks, tmp_path: Path, stage: str) -> None:
    """With no time to say anything, as `kubectl delete pod --force` does it."""
    with operated(cluster, forks, tmp_path) as here:
        here.player.plan(f"{stage}-1", "hang", "hang")
        here.create()
        job = at_work(here, stage)
        for pod in here.run.pods():
            if owner(pod) == job["metadata"]["uid"]:
                cluster.api.delete(path(here, "/api/v1", "pods", pod), gracePeriodSeconds=0)
        ended_well(here)


def test_everything_that_is_not_at_work_deleted(cluster: Cluster, forks: Forks, tmp_path: Path) -> None:
    """Ended Jobs, configurations, Services, NetworkPolicies: what is needed comes again, what is done is not done again."""
    with operated(cluster, forks, tmp_path) as here:
        here.player.plan("train-1", "hang", "hang")
        here.create()
        job = at_work(here, "train")
        for root, plural in (
            ("/apis/networking.k8s.io/v1", "networkpolicies"),
            ("/api/v1", "configmaps"),
            ("/api/v1", "services"),
            ("/apis/batch/v1", "jobs"),
        ):
            for obj in cluster.api.get(path(here, root, plural))["items"]:
                if obj["metadata"]["uid"] != job["metadata"]["uid"]:
                    cluster.api.delete(path(here, root, plural, obj), propagationPolicy="Background")
        here.player.kill(job["metadata"]["name"])
        ended_well(here)
        assert cluster.api.get(path(here, "/apis/networking.k8s.io/v1", "networkpolicies"))["items"] != []


def test_a_run_deleted_and_applied_again_finds_what_was_done(cluster: Cluster, forks: Forks, tmp_path: Path) -> None:
    """At once, while the first one's children are still being removed."""
    with operated(cluster, forks, tmp_path) as here:
        here.player.plan("train-1", "hang", "hang")
        here.create()
        at_work(here, "train")
        done = dict(here.player.store.sealed)
        assert len(done) == 4
        here.run.delete()
        wait_until(lambda: here.run.find() is None, "the run to be gone", seconds=60)
        here.create()
        ended_well(here)
        assert here.player.store.sealed.items() >= done.items()
        stages = here.run.status["stages"] + here.run.status["iterations"][0]["stages"]
        adopted = [stage["name"] for stage in stages if stage.get("adopted")]
        assert sorted(adopted) == ["evaluate", "label", "reference", "sample"]


def test_a_finished_run_deleted_and_applied_again_computes_nothing(cluster: Cluster, forks: Forks, tmp_path: Path) -> None:
    with operated(cluster, forks, tmp_path) as here:
        here.create()
        ended_well(here)
        before, best = len(here.player.starts), here.run.status["checkpoint"]
        here.run.delete()
        wait_until(lambda: here.run.find() is None, "the run to be gone", seconds=60)
        here.create()
        ended_well(here)
        assert here.run.status["checkpoint"] == best
        again = {start.label.partition(":")[0].partition("-")[0] for start in here.player.starts[before:]}
        assert again == {"preflight", "resolve", "finalize"}
