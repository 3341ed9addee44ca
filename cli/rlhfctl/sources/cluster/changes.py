"""Watching a list of objects through outages: after a break nothing is told twice, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rlhf_operator.kubernetes.api import errors as api
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import Resource
from rlhfctl.errors import NoConnection

from .kubeconfig import Target
from .refusals import error_of

T = TypeVar("T")
#: A watch that is broken is taken up again for so long; a rolling upgrade of a control plane takes less.
PATIENCE_SECONDS = 300.0
#: An API server that starts may refuse what it allows a moment later.
REFUSED_SECONDS = 15.0
#: A connection that died without a word is noticed after this and a little.
_WATCH_SECONDS = 60
#: A watch that was cut after this was one; a proxy whose server is away may answer, and cut at once.
_STOOD_SECONDS = 5.0


@dataclass(frozen=True)
class Change(Generic[T]):
    """Of one object of a watched list."""

    object: T
    gone: bool = False


def changes(
    cluster: Cluster,
    resource: Resource,
    namespace: str,
    target: Target,
    say: Callable[[str], None],
    *,
    label_selector: str | None = None,
    field_selector: str | None = None,
    known: dict[str, Mapping[str, Any]] | None = None,
) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """What is there, then what changes, for ever: (object, gone). After a break nothing is told twice, and nothing is lost.

    `known`, by uid, was read before: it is told when it has changed. Without it this is the first that is asked of the server, and
    one that does not answer is not waited for.
    """
    version: str | None = None
    outage = _Outage(target.server, say)
    if known is not None:
        outage.over()
    known = known or {}
    began = time.monotonic()
    while True:
        try:
            if version is None:
                pages = list(cluster.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector))
                items = [item for page in pages for item in page.items]
                version = pages[-1].resource_version
                outage.over()
                yield from _compared(known, items)
            began = time.monotonic()
            for event in cluster.watch(
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
                raise error_of(error, target, "watch", resource, namespace) from error


def patiently(read: Callable[[], T], server: str, say: Callable[[str], None]) -> T:
    """What `read` gives, asked for again as long as a watch would be: for who follows a run, and was connected a moment ago.

    A server that has just been started lists nothing until it has filled its caches.
    """
    outage = _Outage(server, say)
    outage.over()
    while True:
        try:
            found = read()
        except NoConnection as error:
            if not isinstance(error.__cause__, api.ClusterError) or not outage.may_go_on(error.__cause__):
                raise
        else:
            outage.over()
            return found


class _Outage:
    """How long a watch has been without its server, and whether a person has been told."""

    def __init__(self, server: str, say: Callable[[str], None]) -> None:
        self._server, self._say = server, say
        self._connected = False
        self._since: float | None = None
        self._failures = 0
        self._told = False

    def over(self) -> None:
        if self._told:
            self._say(f"connected to {self._server} again")
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
            self._say(f"the connection to {self._server} is lost ({error}); trying again")
        time.sleep(min(0.1 * 2**self._failures, 5.0))
        return True


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
