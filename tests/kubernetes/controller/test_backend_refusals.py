"""What an API server refuses, who is in the way, and why a pod does not come: told in the words of whoever said it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.handle import Cluster
from cluster.stages import PLAN
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.clock import SystemClock
from rlhf_operator.core.actions import (
    Action,
    CreateConfigMap,
    CreateJob,
    CreateService,
    DeleteJob,
    EmitEvent,
    EventKind,
    RemoveChildren,
)
from rlhf_operator.core.observed import Hindrance, Job, Observed
from rlhf_operator.kubernetes.api.resources import CONFIG_MAPS, EVENTS, JOBS, PODS, RUNS, SERVICES, Resource
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.events import event
from rlhf_operator.kubernetes.objects.labels import selector
from rlhf_operator.kubernetes.watch.index import Index
from rlhf_operator.ports import Seen
from rlhf_operator.reconcile import reconcile
from support.backend_contract import SPEC, launched
from support.kubernetes_world import KubernetesWorld, played
from support.player import ANNOTATIONS, Player
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

QUOTA = Resource("v1", "ResourceQuota", "resourcequotas")
#: The Job controller writes conditions into a foreign Job too; nobody else's are these.
IDENTITY = ("uid", "generation", "labels", "annotations", "ownerReferences", "deletionTimestamp")


@pytest.fixture
def player(cluster: Cluster, namespace: str) -> Iterator[Player]:
    with Player(cluster.api, namespace) as player:
        yield player


@pytest.fixture
def world(cluster: Cluster, namespace: str) -> KubernetesWorld:
    return KubernetesWorld(cluster, namespace, played(**SPEC))


def seen(world: KubernetesWorld) -> Seen:
    found = world.backend.observe(live=True)
    assert found is not None
    return found


def observed(world: KubernetesWorld) -> Observed:
    return seen(world).observed


def apply(world: KubernetesWorld, *actions: Action) -> bool:
    return all(world.backend.apply(seen(world).run, action) for action in actions)


def start(world: KubernetesWorld, stage: StageName, attempt: int = 1) -> str:
    actions = launched(seen(world).run, stage, attempt)
    assert apply(world, *actions)
    return job_in(actions).name


def job_in(actions: tuple[Action, ...]) -> CreateJob:
    return next(action for action in actions if isinstance(action, CreateJob))


def hindrance(world: KubernetesWorld) -> Hindrance:
    def told() -> Hindrance | None:
        return next((job.hindrance for job in observed(world).jobs if job.hindrance is not None), None)

    return wait_until(told, "what hinders the Job")


def until_failed(world: KubernetesWorld) -> RLHFRunStatus:
    def finished() -> RLHFRunStatus | None:
        world.tell_index()
        reconcile(world.backend, SystemClock())
        status = seen(world).run.status
        return status if status is not None and status.phase.finished else None

    status = wait_until(finished, "the end of the run")
    assert status.phase is Phase.FAILED
    assert Reason.CONFIGURATION_ERROR in {condition.reason for condition in status.conditions}
    return status


# --- who is in the way ---


def test_a_job_of_somebody_else_is_left_alone_and_named(world: KubernetesWorld) -> None:
    actions = launched(seen(world).run, StageName.PREFLIGHT)
    name = job_in(actions).name
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    foreign = {"metadata": {"name": name, "labels": {"rlhf.dev/run": "tiny"}}, "spec": {"suspend": True, "template": {"spec": pod}}}
    before = world.cluster.create(JOBS, world.namespace, foreign)
    assert not apply(world, *actions)
    [refusal] = observed(world).refusals
    assert refusal.message == f"Job {name} exists and is not this run's. Remove it, or give the run another name."
    assert observed(world).jobs == ()
    assert apply(world, DeleteJob(name, "of the run"))
    after = world.cluster.get(JOBS, world.namespace, name)["metadata"]
    assert {field: after.get(field) for field in IDENTITY} == {field: before["metadata"].get(field) for field in IDENTITY}
    world.cluster.delete(JOBS, world.namespace, name)
    wait_until(lambda: apply(world, *actions), "a free name")
    assert observed(world).refusals == ()


@pytest.mark.parametrize(("resource", "kind"), [(CONFIG_MAPS, CreateConfigMap), (SERVICES, CreateService)])
def test_a_config_map_or_service_of_somebody_else_is_left_alone(
    world: KubernetesWorld, resource: Resource, kind: type[Action]
) -> None:
    actions = launched(seen(world).run, StageName.TRAIN)
    [action] = [action for action in actions if isinstance(action, kind)]
    body: dict[str, Any] = {"metadata": {"name": job_in(actions).name}}
    if resource is SERVICES:
        body["spec"] = {"clusterIP": "None"}
    before = world.cluster.create(resource, world.namespace, body)
    assert not apply(world, action)
    after = world.cluster.get(resource, world.namespace, before["metadata"]["name"])
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert f"{resource.kind} {before['metadata']['name']} exists" in observed(world).refusals[0].message


def test_a_job_that_is_going_is_waited_for(world: KubernetesWorld, player: Player) -> None:
    player.plan("preflight-0", "deaf")
    name = start(world, StageName.PREFLIGHT)
    [job] = wait_until(lambda: [job for job in observed(world).jobs if job.pods and job.pods[0].started_at], "its pod")
    assert apply(world, DeleteJob(name, job.uid))
    going = world.cluster.get(JOBS, world.namespace, name)
    assert going["metadata"]["finalizers"] == ["foregroundDeletion"]
    actions = launched(seen(world).run, StageName.PREFLIGHT)
    assert not apply(world, *actions)
    assert observed(world).refusals == ()
    player.kill(name)
    wait_until(lambda: apply(world, *actions), "a free name")
    assert observed(world).jobs[0].uid != job.uid


def test_a_status_is_not_written_to_a_run_that_took_the_name(world: KubernetesWorld) -> None:
    old = seen(world)
    world.cluster.delete(RUNS, world.namespace, "tiny")
    body = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": "tiny"}, "spec": old.run.spec.to_wire()}
    world.cluster.create(RUNS, world.namespace, body)
    assert not world.backend.write_status(old, RLHFRunStatus(message="of the former"))
    assert seen(world).run.status is None
    world.cluster.delete(RUNS, world.namespace, "tiny")
    assert not world.backend.write_status(old, RLHFRunStatus(message="of the former"))
    assert world.backend.observe(live=True) is None


# --- what is refused ---


def test_a_manifest_that_no_job_can_be_made_of_ends_the_run_with_the_servers_words(cluster: Cluster, namespace: str) -> None:
    selector = {"matchExpressions": [{"key": "zone", "operator": "Near", "values": ["a"]}]}
    node = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [selector]}}
    world = KubernetesWorld(cluster, namespace, played(podDefaults={"affinity": {"nodeAffinity": node}}))
    message = until_failed(world).message
    assert 'operator: Invalid value: "Near"' in message
    assert "tiny-i0-preflight-1" in message


def test_what_was_refused_of_a_run_is_not_held_against_the_next_of_its_name(cluster: Cluster, namespace: str) -> None:
    """Deleted and applied again, corrected, before anybody has looked: it has the generation that the former had."""
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "no key"}]}}
    world = KubernetesWorld(cluster, namespace, played(podDefaults={"affinity": affinity}))
    assert not apply(world, *launched(seen(world).run, StageName.PREFLIGHT))
    assert [refusal.reason for refusal in observed(world).refusals] == [Reason.CONFIGURATION_ERROR]
    world.cluster.delete(RUNS, namespace, "tiny")
    corrected = {
        "apiVersion": "rlhf.dev/v1alpha1",
        "kind": "RLHFRun",
        "metadata": {"name": "tiny"},
        "spec": played().spec.to_wire(),
    }
    world.cluster.create(RUNS, namespace, corrected)
    assert observed(world).refusals == ()


def test_an_affinity_that_is_none_ends_the_run_too(cluster: Cluster, namespace: str) -> None:
    world = KubernetesWorld(cluster, namespace, played(podDefaults={"affinity": {"nodeAffinity": "near"}}))
    assert "nodeAffinity" in until_failed(world).message


def test_what_only_our_own_rules_forbid_ends_the_run_before_anything_is_made(cluster: Cluster, namespace: str) -> None:
    world = KubernetesWorld(cluster, namespace, played(sample={"engine": {"extraArgs": ["--quantization=fp8"]}}))
    message = until_failed(world).message
    assert message.startswith("The manifest cannot be run: spec.sample.engine.extraArgs")
    assert world.cluster.list(CONFIG_MAPS, namespace, label_selector=selector("tiny")) == []


def test_a_service_account_that_is_not_on_the_list_ends_the_run(cluster: Cluster, namespace: str) -> None:
    storage = {"url": "s3://bucket/tiny", "credentials": {"serviceAccountName": "admin"}}
    allowed = Installation(image="i", allowed_service_accounts=frozenset({"rlhf-s3"}))
    world = KubernetesWorld(cluster, namespace, played(storage=storage), allowed)
    assert "admin is not on this operator's list (allowed: rlhf-s3)" in until_failed(world).message


def test_a_quota_on_jobs_is_told_and_tried_again(world: KubernetesWorld) -> None:
    quota = {"metadata": {"name": "jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    world.cluster.create(QUOTA, world.namespace, quota)
    wait_until(lambda: world.cluster.get(QUOTA, world.namespace, "jobs").get("status", {}).get("used"), "the quota's count")
    actions = launched(seen(world).run, StageName.PREFLIGHT)
    assert not apply(world, *actions)
    [refusal] = observed(world).refusals
    assert refusal.reason is Reason.QUOTA_EXCEEDED
    assert "exceeded quota: jobs, requested: count/jobs.batch=1" in refusal.message
    world.cluster.delete(QUOTA, world.namespace, "jobs")
    wait_until(lambda: apply(world, *actions), "room for the Job")


# --- why no pod comes ---


def test_a_quota_on_pods_is_told_in_the_words_of_the_job_controller(world: KubernetesWorld) -> None:
    world.cluster.create(QUOTA, world.namespace, {"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "0"}}})
    wait_until(lambda: world.cluster.get(QUOTA, world.namespace, "pods").get("status", {}).get("used"), "the quota's count")
    start(world, StageName.PREFLIGHT)
    told = hindrance(world)
    assert told.reason is Reason.QUOTA_EXCEEDED
    assert "exceeded quota: pods, requested: pods=1" in told.message


def test_a_service_account_that_does_not_exist_is_told(cluster: Cluster, namespace: str) -> None:
    storage = {"url": "s3://bucket/tiny", "credentials": {"serviceAccountName": "rlhf-s3"}}
    world = KubernetesWorld(cluster, namespace, played(storage=storage))
    start(world, StageName.PREFLIGHT)
    told = hindrance(world)
    assert (told.reason, "serviceaccount" in told.message, "rlhf-s3" in told.message) == (Reason.CONFIGURATION_ERROR, True, True)


def test_a_pod_that_finds_no_node_is_told_in_the_schedulers_words(cluster: Cluster, namespace: str) -> None:
    world = KubernetesWorld(cluster, namespace, played(podDefaults={"nodeSelector": {"example.com/pool": "nowhere"}}))
    start(world, StageName.PREFLIGHT)
    told = hindrance(world)
    assert told.reason is Reason.UNSCHEDULABLE
    assert "nodes are available" in told.message
    assert "didn't match Pod's node affinity/selector" in told.message


@pytest.mark.parametrize(
    ("plan", "reason", "words"),
    [
        ("image", Reason.IMAGE_PULL_BACK_OFF, "Back-off pulling image"),
        ("config", Reason.CONFIGURATION_ERROR, "secret s3-credentials not found"),
    ],
)
def test_what_the_kubelet_waits_for_is_told(cluster: Cluster, namespace: str, plan: str, reason: Reason, words: str) -> None:
    world = KubernetesWorld(cluster, namespace, played(podDefaults={"annotations": {PLAN: plan}}))
    start(world, StageName.PREFLIGHT)
    told = hindrance(world)
    assert (told.reason, words in told.message) == (reason, True)


# --- what is left, what is told ---


def test_a_preempted_shard_counts_also_when_its_pod_is_gone(world: KubernetesWorld, player: Player) -> None:
    player.plan("sample-1-0", "disrupted", "hang")
    player.plan("sample-1-1", "hang")
    start(world, StageName.SAMPLE)

    def replaced() -> Job | None:
        [job] = observed(world).jobs
        return job if [pod.index for pod in job.pods].count(0) == 2 else None

    job = wait_until(replaced, "the replacement")
    for pod in world.cluster.list(PODS, world.namespace):
        if pod["status"]["phase"] == "Failed":
            world.cluster.delete(PODS, world.namespace, pod["metadata"]["name"])
    wait_until(lambda: len(world.cluster.list(PODS, world.namespace)) == 2, "its removal")
    [later] = observed(world).jobs
    assert [pod.disrupted for pod in later.pods if pod.index == 0] == [False, True]
    assert len(later.pods) == len(job.pods)


def test_children_that_no_job_speaks_for_are_removed_too(cluster: Cluster, namespace: str) -> None:
    world = KubernetesWorld(cluster, namespace, played(ttlSecondsAfterFinished=1))
    policy, config_map, _ = launched(seen(world).run, StageName.PREFLIGHT)
    assert apply(world, policy, config_map)
    assert world.backend.write_status(seen(world), RLHFRunStatus(phase=Phase.CANCELLED))
    backend = world.another_backend()
    world.tell_index()
    told = backend.observe(live=False)
    assert told is not None
    assert told.observed.children
    found = backend.observe(live=True)
    assert found is not None
    assert found.observed.children
    assert backend.apply(found.run, RemoveChildren())
    # Removed in the foreground: it is gone when the cluster's garbage collector has seen that nothing depends on it.
    wait_until(lambda: world.cluster.list(CONFIG_MAPS, namespace, label_selector=selector("tiny")) == [], "its removal")
    assert not observed(world).children
    assert not seen(world).observed.children


def test_an_event_that_is_told_again_is_the_same_object(world: KubernetesWorld) -> None:
    told = EmitEvent(EventKind.RETRYING, Reason.OOM_KILLED, "Stage train will be tried again. " + "It ended. " * 200)
    assert apply(world, told, told)
    assert apply(world, EmitEvent(EventKind.RUN, None, "Hello."))
    events = world.cluster.list(EVENTS, world.namespace, field_selector="involvedObject.kind=RLHFRun")
    assert sorted((entry["type"], entry["reason"]) for entry in events) == [("Normal", "Run"), ("Warning", "OOMKilled")]
    assert max(len(entry["message"]) for entry in events) == 1024


def test_the_same_words_after_another_status_are_told_again(world: KubernetesWorld) -> None:
    run, action, now = seen(world).run, EmitEvent(EventKind.RUN, Reason.SUSPENDED, "Suspended."), SystemClock().now()
    later = run.model_copy(update={"metadata": run.metadata.model_copy(update={"resource_version": "2"})})
    names = [event(each.metadata, action, now)["metadata"]["name"] for each in (run, run, later)]
    assert len(set(names)) == 2


def test_restricted_pod_security_admits_every_kind_of_pod(world: KubernetesWorld, player: Player) -> None:
    namespace = world.cluster.get(Resource("v1", "Namespace", "namespaces"), None, world.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert ANNOTATIONS
    for stage in (StageName.PREFLIGHT, StageName.SAMPLE, StageName.TRAIN):
        name = start(world, stage)
        wait_until(lambda name=name: any(job.name == name and job.ended for job in observed(world).jobs), f"the end of {name}")  # type: ignore[misc]
    assert {pod.exit_code for job in observed(world).jobs for pod in job.pods} == {0}


def test_the_index_tells_what_the_api_server_tells(world: KubernetesWorld, player: Player) -> None:
    player.plan("sample-1-1", "disrupted")
    player.plan("train-1-0", "hang")
    player.plan("train-1-1", "exit 1")
    names = {start(world, StageName.SAMPLE), start(world, StageName.TRAIN)}
    wait_until(lambda: names == {job.name for job in observed(world).jobs if job.ended}, "the end of both")
    live = observed(world)
    assert sum(len(job.pods) for job in live.jobs) == 5
    world.index = Index()
    world.tell_index()
    indexed = world.another_backend().observe(live=False)
    assert indexed is not None
    assert {job.name: job for job in indexed.observed.jobs} == {job.name: job for job in live.jobs}
    run = seen(world).run
    assert (indexed.run.spec, indexed.run.metadata.resource_version) == (run.spec, run.metadata.resource_version)
