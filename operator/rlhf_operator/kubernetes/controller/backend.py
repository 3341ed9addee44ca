"""One run of a cluster: observe its children, write its status, carry out what the core decides."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from pydantic import ValidationError

from rlhf_api.reading.unknown import mismatches
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Reason
from rlhf_operator.core.actions import (
    Action,
    CreateConfigMap,
    CreateJob,
    CreateNetworkPolicy,
    CreateService,
    DeleteJob,
    DeletePod,
    EmitEvent,
    RemoveChildren,
)
from rlhf_operator.core.observed import Environment, Job, Observed, Refusal
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from rlhf_operator.kubernetes.api.resources import CONFIG_MAPS, EVENTS, JOBS, NETWORK_POLICIES, PODS, RUNS, SERVICES, Json, Resource
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects import manifests
from rlhf_operator.kubernetes.objects.events import event
from rlhf_operator.kubernetes.objects.hindrance import hindrance_of, needs_events, silent_pods
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.objects.labels import selector
from rlhf_operator.kubernetes.objects.manifests.metadata import is_owned_by
from rlhf_operator.kubernetes.objects.observation import job_of, own_jobs, pods_of, unknown_in
from rlhf_operator.kubernetes.watch.index import Index
from rlhf_operator.ports import Clock, Seen

from .acceptance import Acceptance, refuse_unreadable
from .untouched import Untouched

log = logging.getLogger(__name__)

#: A Job makes its pods within this time, where nothing hinders it.
_PODS_COME_WITHIN = timedelta(seconds=2)
#: Of a pod whose stage's container has ended: no checkpoint is waited for.
_SIDECARS_END_WITHIN_SECONDS = 30
#: Jobs last: as long as one is there, everybody sees that there is something to remove.
_REMOVED_IN_ORDER = (SERVICES, CONFIG_MAPS, NETWORK_POLICIES, JOBS)


class KubernetesBackend:
    """Keep it as long as the run lives, for it remembers what was refused; call it from one thread at a time.

    Raises Unavailable where the API server is away, and NotLeader where the Lease is lost: the round is then to be repeated.
    """

    def __init__(
        self,
        key: RunKey,
        cluster: Cluster,
        index: Index,
        installation: Installation,
        clock: Clock,
        untouched: Untouched | None = None,
    ) -> None:
        self._key = key
        self._cluster = cluster
        self._index = index
        self._installation = installation
        self._clock = clock
        self._untouched = untouched or Untouched(cluster, clock)
        """Outlives us: a run that is left alone is to a round as one that is gone."""
        self._acceptance = Acceptance(installation)
        self._refusals: dict[str, Refusal] = {}
        self._refused: tuple[str | None, int | None] | None = None
        """(uid, generation) of the run whose refusals these are: another manifest may be accepted."""
        self._network_policy: tuple[str, str] | None = None
        """(uid of the run, uid of its policy), once it is known to be ours."""
        self._bare: str | None = None
        """The uid of the run, once nothing was left of its children."""

    # --- the port ---

    def observe(self, *, live: bool) -> Seen | None:
        raw = self._read_run() if live else self._index.run(self._key)
        if raw is None:
            self._untouched.forget(self._key)
            return None
        try:
            run = RLHFRun.model_validate(raw)
        except ValidationError as error:
            why = mismatches(error)
            if not refuse_unreadable(self._cluster, raw, why, self._clock.now()):
                self._untouched.leave(self._key, raw, why)
            return None
        jobs, pods = self._read_children(run) if live else self._indexed_children()
        if unknown := tuple(unknown_in(run, jobs, pods)):
            self._untouched.leave(self._key, raw, unknown)
            return None
        self._untouched.forget(self._key)
        if (identity := (run.metadata.uid, run.metadata.generation)) != self._refused:
            self._refused = identity
            self._refusals.clear()
        jobs = own_jobs(run, jobs)
        observed = Observed(
            jobs=tuple(self._observed(job, pods_of(job, pods)) for job in jobs),
            live=live,
            children=bool(jobs) or self._has_others(run, live),
            refusals=(*self._acceptance.refusals(raw, run), *self._refusals.values()),
            environment=Environment(image=self._installation.image),
        )
        return Seen(run, observed)

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        metadata = seen.run.metadata
        identity = {"name": metadata.name, "uid": metadata.uid, "resourceVersion": metadata.resource_version}
        body = {"metadata": identity, "status": status.to_wire()}
        try:
            stored = self._cluster.apply(RUNS, metadata.namespace, body, subresource="status")
        except (Conflict, NotFound):
            return False
        # At once: an event of a child that overtakes the run's own would else be looked at with an old status.
        self._index.put(Kind.RUN, stored)
        return True

    def apply(self, run: RLHFRun, action: Action) -> bool:
        try:
            return self._apply(run, action)
        except (Forbidden, Invalid) as error:
            name = getattr(action, "name", self._key.name)
            self._refuse(name, _reason(error), error.message)
            return False
        except NotFound:
            return False  # The namespace is going.

    # --- what is there ---

    def _read_run(self) -> Json | None:
        try:
            raw = self._cluster.get(RUNS, *self._key)
        except NotFound:
            return None
        self._index.put(Kind.RUN, raw)
        return raw

    def _read_children(self, run: RLHFRun) -> tuple[list[Json], list[Json]]:
        """Jobs first: pods may then be newer than what their Job says, never older."""
        namespace, labelled = run.metadata.namespace, selector(run.metadata.name)
        jobs = self._cluster.list(JOBS, namespace, label_selector=labelled)
        pods = self._cluster.list(PODS, namespace, label_selector=labelled) if jobs else []
        for kind, objs in ((Kind.JOB, jobs), (Kind.POD, pods)):
            for obj in objs:
                self._index.put(kind, obj)
        return jobs, pods

    def _indexed_children(self) -> tuple[list[Json], list[Json]]:
        jobs = self._index.children(Kind.JOB, self._key)
        return jobs, self._index.children(Kind.POD, self._key) if jobs else []

    def _observed(self, job: Json, pods: list[Json]) -> Job:
        seen = job_of(job, pods, hindrance_of(job, pods))
        since = seen.admitted_at or seen.created_at
        if seen.hindrance is not None or not needs_events(job, pods) or self._clock.now() - since < _PODS_COME_WITHIN:
            return seen
        # What keeps one of them keeps the others.
        return replace(seen, hindrance=hindrance_of(job, pods, self._events_of([job, *silent_pods(pods)[:1]])))

    def _events_of(self, objs: Iterable[Json]) -> list[Json]:
        return [
            told
            for obj in objs
            for told in self._cluster.list(
                EVENTS, self._key.namespace, field_selector=f"involvedObject.uid={obj['metadata']['uid']}"
            )
        ]

    def _has_others(self, run: RLHFRun, live: bool) -> bool:
        """Only the removal of a finished run's children asks for more than Jobs."""
        finished = run.status is not None and run.status.phase.finished
        if not finished or run.spec.ttl_seconds_after_finished is None or self._bare == run.metadata.uid:
            return False
        if not live:
            return True  # Not known; the live observation that follows will tell.
        if any(self._children_of(run, resource) for resource in _REMOVED_IN_ORDER):
            return True
        self._bare = run.metadata.uid
        return False

    def _children_of(self, run: RLHFRun, resource: Resource) -> list[Json]:
        found = self._cluster.list(resource, run.metadata.namespace, label_selector=selector(run.metadata.name))
        return [obj for obj in found if is_owned_by(obj, run)]

    # --- what is done ---

    def _apply(self, run: RLHFRun, action: Action) -> bool:
        match action:
            case CreateNetworkPolicy():
                return self._keep_network_policy(run, manifests.network_policy(run, action))
            case CreateConfigMap():
                return self._put_in_place(run, CONFIG_MAPS, manifests.config_map(run, action)) is not None
            case CreateService():
                return self._put_in_place(run, SERVICES, manifests.service(run, action)) is not None
            case CreateJob():
                return self._create_job(run, action)
            case DeleteJob():
                self._delete(JOBS, action.name, action.uid)
            case DeletePod():
                self._delete_pod(action)
            case RemoveChildren():
                for resource in _REMOVED_IN_ORDER:
                    for obj in self._children_of(run, resource):
                        self._delete(resource, obj["metadata"]["name"], obj["metadata"]["uid"])
            case EmitEvent():
                self._tell(run, action)
        return True

    def _create_job(self, run: RLHFRun, action: CreateJob) -> bool:
        try:
            job = self._cluster.create(JOBS, self._key.namespace, manifests.job(run, action, self._installation))
        except AlreadyExists:
            existing = self._cluster.get(JOBS, self._key.namespace, action.name)
            if not self._is_free_to_use(run, JOBS, existing):
                return False
            job = existing
        self._index.put(Kind.JOB, job)
        self._refusals.clear()
        return True

    def _put_in_place(self, run: RLHFRun, resource: Resource, body: Json) -> Json | None:
        """Created, or where it is there and ours, made to be as `body`; None: something is in the way."""
        try:
            return self._cluster.create(resource, self._key.namespace, body)
        except AlreadyExists:
            existing = self._cluster.get(resource, self._key.namespace, body["metadata"]["name"])
        if not self._is_free_to_use(run, resource, existing):
            return None
        return self._cluster.apply(resource, self._key.namespace, _of_uid(body, existing["metadata"]["uid"]))

    def _keep_network_policy(self, run: RLHFRun, body: Json) -> bool:
        """It is there for all stages: from the second one on a single request sees to it."""
        run_uid = run.metadata.uid or ""
        if self._network_policy is not None and self._network_policy[0] == run_uid:
            try:
                self._cluster.apply(NETWORK_POLICIES, self._key.namespace, _of_uid(body, self._network_policy[1]))
            except Conflict:
                self._network_policy = None  # Somebody removed it.
            else:
                return True
        stored = self._put_in_place(run, NETWORK_POLICIES, body)
        self._network_policy = None if stored is None else (run_uid, stored["metadata"]["uid"])
        return stored is not None

    def _is_free_to_use(self, run: RLHFRun, resource: Resource, existing: Json) -> bool:
        name = existing["metadata"]["name"]
        if is_owned_by(existing, run):
            return "deletionTimestamp" not in existing["metadata"]
        message = f"{resource.kind} {name} exists and is not this run's. Remove it, or give the run another name."
        self._refuse(name, None, message)
        return False

    def _refuse(self, name: str, reason: Reason | None, message: str) -> None:
        """The time is of the first refusal in a row, whatever was said."""
        known = self._refusals.get(name)
        since = self._clock.now() if known is None else known.since
        self._refusals[name] = Refusal(name, reason, message, since)

    def _delete(self, resource: Resource, name: str, uid: str) -> None:
        """Foreground: a Job is gone only when its pods are."""
        try:
            left = self._cluster.delete(resource, self._key.namespace, name, uid=uid, propagation="Foreground")
        except (NotFound, Conflict):
            return  # What has that uid is gone.
        if left.get("kind") == JOBS.kind:
            self._index.put(Kind.JOB, left)

    def _delete_pod(self, action: DeletePod) -> None:
        try:
            self._cluster.delete(PODS, self._key.namespace, action.name, uid=action.uid, grace_seconds=_SIDECARS_END_WITHIN_SECONDS)
        except (NotFound, Conflict):
            return  # It is gone.

    def _tell(self, run: RLHFRun, action: EmitEvent) -> None:
        """Nothing depends on it, so nothing waits for it."""
        try:
            self._cluster.create(EVENTS, self._key.namespace, event(run.metadata, action, self._clock.now()))
        except AlreadyExists:
            pass
        except ApiError as error:
            log.warning("the event %r of %s could not be told: %s", action.message, self._key, error)


def _of_uid(body: Json, uid: str) -> Json:
    return {**body, "metadata": {**body["metadata"], "uid": uid}}


def _reason(error: Forbidden | Invalid) -> Reason | None:
    """ConfigurationError ends the run. What an admission policy of the cluster denies may be allowed tomorrow."""
    if isinstance(error, Forbidden):
        return Reason.QUOTA_EXCEEDED if error.exceeded_quota else None
    denied = "denied the request" in error.message or "denied request" in error.message
    return None if denied else Reason.CONFIGURATION_ERROR
