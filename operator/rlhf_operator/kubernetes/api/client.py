"""One API server: thin, thread-safe, raw JSON in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import config as kubernetes_config
from kubernetes.client import Configuration

from .errors import Gone, NotConfigured
from .resources import PODS, Json, Resource
from .transport import READ_SECONDS, Transport, status_error

#: Where a pod finds the namespace that it runs in.
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PAGE = 500
#: How long a watch may be silent; the server's own bookmarks and time limit come sooner.
_WATCH_GRACE_SECONDS = 15.0
_APPLY = "application/apply-patch+yaml"  # JSON is YAML.
_MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Page:
    """A part of a list; all parts are of one moment."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Json


class Cluster(Transport):
    """Reads are from the quorum, and repeated when the server is away for a moment; writes are sent once."""

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None, **options: Any) -> Cluster:
        """As kubectl does: the file that is named, else $KUBECONFIG, else ~/.kube/config; else the pod's own service account."""
        named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
        default = Path("~/.kube/config").expanduser()
        if named is None and context is None and not default.exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
            return cls.in_cluster(**options)
        configuration = Configuration()
        try:
            kubernetes_config.load_kube_config(named or str(default), context, configuration, persist_config=False)
            _, active = kubernetes_config.list_kube_config_contexts(named or str(default))
            if context is not None:
                contexts, _ = kubernetes_config.list_kube_config_contexts(named or str(default))
                active = next(entry for entry in contexts if entry["name"] == context)
        except (kubernetes_config.ConfigException, OSError, StopIteration, TypeError) as error:
            raise NotConfigured(f"The kubeconfig {named or default} cannot be used: {error}") from error
        options.setdefault("namespace", active["context"].get("namespace") or "default")
        return cls(configuration, **options)

    @classmethod
    def in_cluster(cls, **options: Any) -> Cluster:
        """By the service account of the pod that this runs in."""
        configuration = Configuration()
        try:
            kubernetes_config.load_incluster_config(configuration)
            options.setdefault("namespace", OWN_NAMESPACE.read_text().strip())
        except (kubernetes_config.ConfigException, OSError) as error:
            raise NotConfigured(f"There is no service account that leads to a cluster: {error}") from error
        return cls(configuration, **options)

    # --- reads: from the quorum, repeated when the server is away for a moment ---

    def get(self, resource: Resource, namespace: str | None, name: str) -> Json:
        return self._read(resource.path(namespace, name))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Json]:
        """All of one moment."""
        while True:
            pages = self.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector)
            try:
                return [item for page in pages for item in page.items]
            except Gone:
                continue  # The list took longer than the server keeps a moment.

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = _PAGE,
    ) -> Iterator[Page]:
        """Raises Gone where the list takes longer than the server keeps its moment: begin again."""
        query: dict[str, str] = {"limit": str(limit)} | _selectors(label_selector, field_selector)
        while True:
            answer = self._read(resource.path(namespace), query)
            yield Page(answer.get("items") or [], answer["metadata"]["resourceVersion"])
            following = answer["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        seconds: int = 300,
    ) -> Iterator[WatchEvent]:
        """What changes after `resource_version`, until the server ends it after `seconds`; raises Gone where that is too old.

        Without a version: what is there first, as ADDED. Close the iterator to stop early.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query |= _selectors(label_selector, field_selector)
        if resource_version is not None:
            query["resourceVersion"] = resource_version
        path = resource.path(namespace)
        with closing(self._stream(path, query, read_seconds=seconds + _WATCH_GRACE_SECONDS)) as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise status_error(event["object"].get("code", 0), event["object"])
                yield WatchEvent(event["type"], event["object"])

    def pod_log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        since_time: str | None = None,
        timestamps: bool = False,
        idle_seconds: float | None = None,
    ) -> Iterator[bytes]:
        """Lines without their ends, as the container wrote them; with `follow` until it ends, or the connection does, or nothing
        has come for `idle_seconds`: then Unavailable, for a connection that is dead says nothing either.
        """
        query = {"container": container, "follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        if since_time is not None:
            query["sinceTime"] = since_time
        return self._stream(PODS.path(namespace, pod, "log"), query, read_seconds=idle_seconds if follow else READ_SECONDS)

    # --- writes: once ---

    def create(self, resource: Resource, namespace: str, body: Json, *, dry_run: bool = False) -> Json:
        """Raises AlreadyExists where the name is taken."""
        query = {"fieldManager": self._field_manager} | ({"dryRun": "All"} if dry_run else {})
        return self._write("POST", resource.path(namespace), body, query=query)

    def apply(self, resource: Resource, namespace: str, body: Json, *, subresource: str | None = None) -> Json:
        """Server-side apply; what others wrote into our fields is overwritten. With uid and resourceVersion in `body`: Conflict
        where the object is another or a newer one.
        """
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return self._write("PATCH", path, body, _APPLY, {"fieldManager": self._field_manager, "force": "true"})

    def merge_patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Json,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """RFC 7386. With metadata.resourceVersion in `patch`: Conflict where it is a newer one."""
        path = resource.path(namespace, name, subresource)
        query = {"fieldManager": self._field_manager} | ({"dryRun": "All"} if dry_run else {})
        return self._write("PATCH", path, patch, _MERGE_PATCH, query)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> Json:
        """Conflict where the object of that name has another uid. Foreground: the object goes after its dependents. Of a pod:
        `grace_seconds` between SIGTERM and SIGKILL; absent: its own.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return self._write("DELETE", resource.path(namespace, name), options)


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}
