"""The API server, as the CLI uses it: what is asked of it. `refusals` says what its answers mean, `changes` watches.

Raw objects stop here: what goes out is RLHFRun, PodView and EventView.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_api import RLHFRun
from rlhf_operator.kubernetes.api import errors as api
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import EVENTS, PODS, RUNS
from rlhf_operator.kubernetes.objects.labels import STAGE_CONTAINER, selector
from rlhfctl.errors import NoConnection
from rlhfctl.sources.source import Listing, listing

from .changes import Change, changes
from .kubeconfig import Target
from .objects import EventView, PodView, event_view, parse_run, pod_view
from .refusals import error_of, told

FIELD_MANAGER = "rlhfctl"
#: A log that is followed and whose connection died without a word: it is noticed after this.
IDLE_SECONDS = 60.0


class Connection:
    """One API server. Everything that it refuses is raised as a CliError."""

    def __init__(self, cluster: Cluster, target: Target) -> None:
        self._cluster, self.target = cluster, target

    def in_namespace(self, namespace: str) -> Connection:
        return Connection(self._cluster, replace(self.target, namespace=namespace))

    # --- runs ---

    def run(self, namespace: str, name: str) -> RLHFRun:
        with told(self.target, "get", RUNS, namespace):
            return parse_run(self._cluster.get(RUNS, namespace, name))

    def runs(self, namespace: str | None) -> Listing:
        """Ordered by namespace and name."""
        with told(self.target, "list", RUNS, namespace):
            found = self._cluster.list(RUNS, namespace)
        found.sort(key=lambda item: (item["metadata"]["namespace"], item["metadata"]["name"]))
        return listing(partial(parse_run, item) for item in found)

    def create_run(self, namespace: str, manifest: Mapping[str, Any], *, dry_run: bool) -> RLHFRun:
        with told(self.target, "create", RUNS, namespace):
            return parse_run(self._cluster.create(RUNS, namespace, dict(manifest), dry_run=dry_run))

    def patch_run(self, known: RLHFRun, patch: Mapping[str, Any], *, dry_run: bool = False) -> RLHFRun:
        """RFC 7386, of the object as it was seen: Conflict where somebody wrote in between."""
        seen = {"uid": known.metadata.uid, "resourceVersion": known.metadata.resource_version}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **seen}}
        namespace, name = known.metadata.namespace, known.metadata.name
        with told(self.target, "patch", RUNS, namespace):
            return parse_run(self._cluster.merge_patch(RUNS, namespace, name, body, dry_run=dry_run))

    def delete_run(self, namespace: str, name: str, uid: str | None) -> None:
        """In the foreground: it goes after its Jobs and pods have gone."""
        with told(self.target, "delete", RUNS, namespace):
            self._cluster.delete(RUNS, namespace, name, uid=uid, propagation="Foreground")

    def run_uids(self, namespace: str, name: str, uid: str, say: Callable[[str], None]) -> Iterator[Change[str]]:
        """Each change of the run of this name, as its uid, whatever else it holds; `uid`: of the one that was there."""
        known: dict[str, Mapping[str, Any]] = {uid: {"metadata": {"uid": uid, "resourceVersion": ""}}}
        watched = changes(self._cluster, RUNS, namespace, self.target, say, field_selector=f"metadata.name={name}", known=known)
        return (Change(str(item["metadata"]["uid"]), gone) for item, gone in watched)

    def run_changes(self, run: RLHFRun, say: Callable[[str], None]) -> Iterator[Change[RLHFRun]]:
        """Each change since `run` was read, across broken connections; that it is gone by now is one."""
        known: dict[str, Mapping[str, Any]] = {run.metadata.uid or "": run.to_wire()}
        name = f"metadata.name={run.metadata.name}"
        watched = changes(self._cluster, RUNS, run.metadata.namespace, self.target, say, field_selector=name, known=known)
        return (Change(parse_run(item), gone) for item, gone in watched)

    # --- what belongs to a run ---

    def pods(self, run: RLHFRun) -> list[PodView]:
        """Oldest first."""
        return self.pods_of(run.metadata.namespace, run.metadata.name, run.metadata.uid)

    def pods_of(self, namespace: str, name: str, uid: str | None) -> list[PodView]:
        """Of the run of this name and uid, oldest first."""
        with told(self.target, "list", PODS, namespace):
            found = self._cluster.list(PODS, namespace, label_selector=selector(name))
        views = [view for item in found if (view := pod_view(item)) is not None and view.run_uid == uid]
        return sorted(views, key=lambda view: (view.created, view.index or 0))

    def pod_changes(self, run: RLHFRun, say: Callable[[str], None]) -> Iterator[Change[PodView]]:
        """What is there and what changes, across broken connections; `run` was read a moment ago."""
        labels = selector(run.metadata.name)
        watched = changes(self._cluster, PODS, run.metadata.namespace, self.target, say, label_selector=labels, known={})
        for item, gone in watched:
            view = pod_view(item)
            if view is not None and view.run_uid == run.metadata.uid:
                yield Change(view, gone)

    def pod(self, namespace: str, view: PodView) -> PodView | None:
        """As it is now; None: it is gone."""
        with told(self.target, "get", PODS, namespace):
            try:
                now = pod_view(self._cluster.get(PODS, namespace, view.name))
            except api.NotFound:
                return None
        return now if now is not None and now.uid == view.uid else None

    def log(self, namespace: str, pod: PodView, *, follow: bool, since: str | None = None) -> Iterator[bytes]:
        """Lines with their time before them. Raises LogUnreadable where the node or its kubelet does not answer."""
        try:
            yield from self._cluster.pod_log(
                namespace, pod.name, STAGE_CONTAINER, follow=follow, timestamps=True, since_time=since, idle_seconds=IDLE_SECONDS
            )
        except (api.Unavailable, api.NotFound, api.Invalid) as error:
            # A node may be gone too, with its pods to follow.
            gone = isinstance(error, api.NotFound) and f'pods "{pod.name}"' in error.message
            raise LogUnreadable(str(error), gone=gone) from error
        except api.ClusterError as error:
            raise error_of(error, self.target, "get", PODS, namespace, "log") from error

    def events(self, namespace: str) -> list[EventView]:
        with told(self.target, "list", EVENTS, namespace):
            return [event_view(item) for item in self._cluster.list(EVENTS, namespace)]

    def event_changes(self, namespace: str, say: Callable[[str], None]) -> Iterator[EventView]:
        """What is there and what comes, across broken connections; one that is told again comes again."""
        return (event_view(item) for item, gone in changes(self._cluster, EVENTS, namespace, self.target, say) if not gone)


class LogUnreadable(Exception):  # noqa: N818 - what happened
    """The log of one pod cannot be read; the words are the API server's. `gone`: the pod is."""

    def __init__(self, why: str, *, gone: bool) -> None:
        super().__init__(why)
        self.gone = gone


def connection(target: Target) -> Connection:
    """Reads the kubeconfig; the API server is asked later.

    Raises:
        NoConnection: the kubeconfig cannot be used.
    """
    try:
        # Several files go to the library as $KUBECONFIG has them. The context is ours: of those the library takes the last.
        files = None if target.in_pod else Path(os.pathsep.join(map(str, target.files)))
        options: dict[str, Any] = {"field_manager": FIELD_MANAGER}
        cluster = Cluster.in_cluster(**options) if files is None else Cluster.connect(files, target.context, **options)
    except api.ClusterError as error:
        raise NoConnection(f"{target.shown} cannot be used", why=str(error)) from error
    return Connection(cluster, target)
