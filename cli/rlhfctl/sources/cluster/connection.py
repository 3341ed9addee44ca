"""The API server, as the CLI uses it: the one module that knows the cluster client. What it refuses becomes an error of ours.

Raw objects stop here: what goes out is RLHFRun, PodView and EventView.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlhf_api import RLHFRun
from rlhf_operator.kubernetes import errors as api
from rlhf_operator.kubernetes.client import Cluster
from rlhf_operator.kubernetes.labels import STAGE_CONTAINER, selector
from rlhf_operator.kubernetes.resources import EVENTS, PODS, RUNS, Resource
from rlhfctl.display import terminal
from rlhfctl.errors import CliError, Conflict, NoConnection, NotFound, Refused

from .kubeconfig import Target
from .objects import EventView, PodView, event_view, parse_run, pod_view

T = TypeVar("T")
FIELD_MANAGER = "rlhfctl"
#: A watch that is broken is taken up again for so long; a rolling upgrade of a control plane takes less.
PATIENCE_SECONDS = 300.0
#: An API server that starts may refuse what it allows a moment later.
REFUSED_SECONDS = 15.0
#: A connection that died without a word is noticed after this and a little.
_WATCH_SECONDS = 60
#: A watch that was cut after this was one; a proxy whose server is away may answer, and cut at once.
_STOOD_SECONDS = 5.0
#: The same for a log that is followed.
IDLE_SECONDS = 60.0
_INSTALL = "helm upgrade --install rlhf-operator charts/rlhf-operator -n rlhf-system --create-namespace"


@dataclass(frozen=True)
class Change(Generic[T]):
    """Of one object of a watched list."""

    object: T
    gone: bool = False


class Connection:
    """One API server. Everything that it refuses is raised as a CliError."""

    def __init__(self, cluster: Cluster, target: Target) -> None:
        self._cluster, self.target = cluster, target

    def in_namespace(self, namespace: str) -> Connection:
        return Connection(self._cluster, replace(self.target, namespace=namespace))

    # --- runs ---

    def run(self, namespace: str, name: str) -> RLHFRun:
        with self._told("get", RUNS, namespace):
            return parse_run(self._cluster.get(RUNS, namespace, name))

    def runs(self, namespace: str | None) -> list[RLHFRun]:
        with self._told("list", RUNS, namespace):
            found = readable(self._cluster.list(RUNS, namespace))
        return sorted(found, key=lambda run: (run.metadata.namespace, run.metadata.name))

    def create_run(self, namespace: str, manifest: Mapping[str, Any], *, dry_run: bool) -> RLHFRun:
        with self._told("create", RUNS, namespace):
            return parse_run(self._cluster.create(RUNS, namespace, dict(manifest), dry_run=dry_run))

    def patch_run(self, known: RLHFRun, patch: Mapping[str, Any], *, dry_run: bool = False) -> RLHFRun:
        """RFC 7386, of the object as it was seen: Conflict where somebody wrote in between."""
        seen = {"uid": known.metadata.uid, "resourceVersion": known.metadata.resource_version}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **seen}}
        namespace, name = known.metadata.namespace, known.metadata.name
        with self._told("patch", RUNS, namespace):
            return parse_run(self._cluster.merge_patch(RUNS, namespace, name, body, dry_run=dry_run))

    def delete_run(self, known: RLHFRun) -> None:
        """In the foreground: it goes after its Jobs and pods have gone."""
        namespace, name = known.metadata.namespace, known.metadata.name
        with self._told("delete", RUNS, namespace):
            self._cluster.delete(RUNS, namespace, name, uid=known.metadata.uid, propagation="Foreground")

    def run_changes(self, run: RLHFRun, note: Callable[[str], None]) -> Iterator[Change[RLHFRun]]:
        """Each change since `run` was read, across broken connections; that it is gone by now is one."""
        known: dict[str, Mapping[str, Any]] = {run.metadata.uid or "": run.to_wire()}
        name = f"metadata.name={run.metadata.name}"
        watched = self._changes(RUNS, run.metadata.namespace, note, field_selector=name, known=known)
        return (Change(parse_run(item), gone) for item, gone in watched)

    # --- what belongs to a run ---

    def pods(self, run: RLHFRun) -> list[PodView]:
        """Oldest first."""
        namespace = run.metadata.namespace
        with self._told("list", PODS, namespace):
            found = self._cluster.list(PODS, namespace, label_selector=selector(run.metadata.name))
        views = [view for item in found if (view := pod_view(item)) is not None and view.run_uid == run.metadata.uid]
        return sorted(views, key=lambda view: (view.created, view.index or 0))

    def pod_changes(self, run: RLHFRun, note: Callable[[str], None]) -> Iterator[Change[PodView]]:
        watched = self._changes(PODS, run.metadata.namespace, note, label_selector=selector(run.metadata.name))
        for item, gone in watched:
            view = pod_view(item)
            if view is not None and view.run_uid == run.metadata.uid:
                yield Change(view, gone)

    def pod(self, namespace: str, view: PodView) -> PodView | None:
        """As it is now; None: it is gone."""
        with self._told("get", PODS, namespace):
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
            raise self._error(error, "get", PODS, namespace, "log") from error

    def events(self, namespace: str) -> list[EventView]:
        with self._told("list", EVENTS, namespace):
            return [event_view(item) for item in self._cluster.list(EVENTS, namespace)]

    def event_changes(self, namespace: str, note: Callable[[str], None]) -> Iterator[EventView]:
        """What is there and what comes, across broken connections; one that is told again comes again."""
        return (event_view(item) for item, gone in self._changes(EVENTS, namespace, note) if not gone)

    # --- watching ---

    def _changes(
        self,
        resource: Resource,
        namespace: str,
        note: Callable[[str], None],
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        known: dict[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[tuple[Mapping[str, Any], bool]]:
        """What is there, then what changes, for ever: (object, gone). After a break nothing is told twice, and nothing is lost.

        `known`, by uid, was read before: it is told when it has changed.
        """
        known = known or {}
        version: str | None = None
        outage = _Outage(self.target.server, note)
        began = time.monotonic()
        while True:
            try:
                if version is None:
                    pages = list(
                        self._cluster.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector)
                    )
                    items = [item for page in pages for item in page.items]
                    version = pages[-1].resource_version
                    outage.over()
                    yield from _compared(known, items)
                began = time.monotonic()
                for event in self._cluster.watch(
                    resource,
                    namespace,
                    resource_version=version,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    seconds=_WATCH_SECONDS,
                ):
                    outage.over()
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type == "BOOKMARK":
                        continue
                    uid, gone = event.object["metadata"]["uid"], event.type == "DELETED"
                    known[uid] = event.object
                    if gone:
                        del known[uid]
                    yield event.object, gone
                outage.over()  # The server has ended it in its time.
            except api.Gone:
                version = None
            except api.ClusterError as error:
                if isinstance(error, api.ConnectionLost) and time.monotonic() - began >= _STOOD_SECONDS:
                    outage.over()
                if not outage.may_go_on(error):
                    raise self._error(error, "watch", resource, namespace) from error

    # --- errors ---

    @contextmanager
    def _told(self, verb: str, resource: Resource, namespace: str | None) -> Iterator[None]:
        try:
            yield
        except api.ClusterError as error:
            raise self._error(error, verb, resource, namespace) from error

    def _error(
        self, error: api.ClusterError, verb: str, resource: Resource, namespace: str | None, subresource: str = ""
    ) -> CliError:
        """What an answer means to a person."""
        target = self.target
        what = resource.plural + (f"/{subresource}" if subresource else "")
        where = f"in namespace {namespace!r}" if namespace else "in all namespaces"
        match error:
            case api.NotConfigured():
                return NoConnection(f"{target.shown} cannot be used", why=str(error))
            case api.Unauthorized():
                return NoConnection(
                    f"{target.server} does not accept the credentials of {target.shown}",
                    why=error.message,
                    hints=("log in again, or choose another context with --context",),
                )
            case api.Forbidden() if "cannot" in error.message:
                flags = f"-n {namespace}" if namespace else "-A"
                full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
                sub = f" --subresource={subresource}" if subresource else ""
                return NoConnection(
                    f"you may not {verb} {what} {where}",
                    why=error.message,
                    hints=(f"ask for it, then look: kubectl auth can-i {verb} {full}{sub} {flags}",),
                )
            case api.NotFound() if not _names_an_object(error):
                return NoConnection(
                    f"{target.server} does not know the kind RLHFRun",
                    why="the CRD, which the operator's chart brings, is not installed",
                    hints=(_INSTALL,),
                )
            case api.NotFound():
                return NotFound(error.message)
            case api.Conflict():
                return Conflict(error.message)
            case api.Invalid() | api.Forbidden():
                causes = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in error.causes]
                return Refused(f"{target.server} refuses it", why="\n".join(causes) or error.message)
            case api.Unavailable():
                return NoConnection(
                    f"{target.server} does not answer",
                    why=f"{error.message}\n({target.shown})",
                    hints=("kubectl cluster-info", "choose another context with --context, or --local for runs on this machine"),
                )
            case _:
                return CliError(f"{target.server} did not {verb} {what} {where}", why=str(error))


class LogUnreadable(Exception):  # noqa: N818 - what happened
    """The log of one pod cannot be read; the words are the API server's. `gone`: the pod is."""

    def __init__(self, why: str, *, gone: bool) -> None:
        super().__init__(why)
        self.gone = gone


class _Outage:
    """How long a watch has been without its server, and whether a person has been told."""

    def __init__(self, server: str, note: Callable[[str], None]) -> None:
        self._server, self._note = server, note
        self._connected = False
        self._since: float | None = None
        self._failures = 0
        self._told = False

    def over(self) -> None:
        if self._told:
            self._note(f"connected to {self._server} again")
        self._connected, self._since, self._failures, self._told = True, None, 0, False

    def may_go_on(self, error: api.ClusterError) -> bool:
        """After a pause: try again. A first connection that fails is not waited for."""
        patience = _patience(error)
        now = time.monotonic()
        self._since = self._since or now
        if not self._connected or now - self._since >= patience:
            return False
        self._failures += 1
        # Servers and the proxies before them end idle connections all the time: one failure is no news.
        if self._failures == 2:
            self._told = True
            self._note(f"the connection to {self._server} is lost ({error}); trying again")
        time.sleep(min(0.1 * 2**self._failures, 5.0))
        return True


def readable(items: Iterable[Mapping[str, Any]]) -> list[RLHFRun]:
    """One run that this version cannot read hides no other; it is named on stderr."""
    runs = []
    for item in items:
        try:
            runs.append(parse_run(item))
        except CliError as error:
            terminal.stderr().line(f"left out: {error.what} ({error.why})")
    return runs


def _patience(error: api.ClusterError) -> float:
    if isinstance(error, api.Unavailable):
        return PATIENCE_SECONDS
    return REFUSED_SECONDS if isinstance(error, api.Unauthorized | api.Forbidden) else 0.0


def _compared(known: dict[str, Mapping[str, Any]], items: list[dict[str, Any]]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """What a new list says beside what is known already; what has vanished is told as it was last."""
    here = {item["metadata"]["uid"] for item in items}
    for item in items:
        before = known.get(item["metadata"]["uid"])
        if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            known[item["metadata"]["uid"]] = item
            yield item, False
    for uid in [uid for uid in known if uid not in here]:
        yield known.pop(uid), True


def _names_an_object(error: api.NotFound) -> bool:
    """`rlhfruns.rlhf.dev "x" not found`; a kind that is not served has no such words."""
    return error.reason == "NotFound" and '"' in error.message


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
