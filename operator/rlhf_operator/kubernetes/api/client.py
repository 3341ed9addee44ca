"""One API server: thin, thread-safe, raw JSON in and out.

TLS, authentication, exec plugins, proxies and the refresh of tokens are the kubernetes package's; requests go through its pool of
connections, without its thousands of model classes.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config as kubernetes_config
from kubernetes.client import ApiClient, Configuration

from .errors import ApiError, Cause, ConnectionLost, Gone, NotConfigured, NotLeader, Unavailable, api_error
from .resources import PODS, Resource

Json = dict[str, Any]

FIELD_MANAGER = "rlhf-operator"
#: Where a pod finds the namespace that it runs in.
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_PAGE = 500
#: Waits between the tries of a read; a write is never repeated here, for nobody knows whether the first one was done.
_WAITS = (0.1, 0.5, 1.5)
#: How long a watch may be silent; the server's own bookmarks and time limit come sooner.
_WATCH_GRACE_SECONDS = 15.0
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML.
_MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class Page:
    """A part of a list; all parts are of one moment."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True)
class Credentials:
    """How another HTTP client reaches the same server; its token changes, so `Cluster.token` is asked for each request."""

    server: str
    ca_file: str | None
    client_certificate_file: str | None
    client_key_file: str | None
    verify: bool
    proxy: str | None


@dataclass(frozen=True)
class WatchEvent:
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Json


class Cluster:
    """`may_write` is asked before each write: a leader that lost its Lease stops there. A write is given up after `write_seconds`.
    A read with `read_seconds` is given up after so long and not repeated; without them it is patient. `answered` is told of each
    request: method, path, whether it is a watch, and the status (0: there was no answer).
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespace: str = "default",
        may_write: Callable[[], bool] = lambda: True,
        write_seconds: float = _READ_SECONDS,
        read_seconds: float | None = None,
        field_manager: str = FIELD_MANAGER,
        answered: Callable[[str, str, bool, int], None] = lambda *_: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        configuration.retries = False
        configuration.keep_alive = True
        configuration.connection_pool_maxsize = 32
        self.namespace = namespace
        """The one that the kubeconfig's context, or the pod, is in."""
        self.may_write = may_write
        self._write_seconds = write_seconds
        self._read_seconds = read_seconds
        self._field_manager = field_manager
        self._answered = answered
        self._configuration = configuration
        self._pool = ApiClient(configuration).rest_client.pool_manager
        self._sleep = sleep
        self._authentication = threading.Lock()

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

    @property
    def server(self) -> str:
        return str(self._configuration.host)

    @property
    def credentials(self) -> Credentials:
        found = self._configuration
        return Credentials(self.server, found.ssl_ca_cert, found.cert_file, found.key_file, bool(found.verify_ssl), found.proxy)

    def token(self) -> str | None:
        """The value of the Authorization header, refreshed where that is due. Raises NotConfigured."""
        try:
            with self._authentication:
                token: str | None = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        except kubernetes_config.ConfigException as error:
            raise NotConfigured(f"The credentials for {self.server} cannot be refreshed: {error}") from error
        return token

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
                    raise _status_error(event["object"].get("code", 0), event["object"])
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
        return self._stream(PODS.path(namespace, pod, "log"), query, read_seconds=idle_seconds if follow else _READ_SECONDS)

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
        self, resource: Resource, namespace: str, name: str, *, uid: str | None = None, propagation: str = "Background"
    ) -> Json:
        """Conflict where the object of that name has another uid. Foreground: the object goes after its dependents."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return self._write("DELETE", resource.path(namespace, name), options)

    # --- requests ---

    def _read(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        waits = iter(_WAITS if self._read_seconds is None else ())
        while True:
            try:
                return self._request("GET", path, query)
            except Unavailable as error:
                wait = next(waits, None)
                if wait is None:
                    raise
                self._sleep(max(wait, min(error.retry_after or 0.0, _WAITS[-1])))

    def _write(self, method: str, path: str, body: Json, content_type: str = _JSON, query: Mapping[str, str] | None = None) -> Json:
        if not self.may_write():
            raise NotLeader(f"{method} {path} was not sent: another process may be the leader now.")
        return self._request(method, path, query, json.dumps(body).encode(), content_type)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        content_type: str = _JSON,
    ) -> Json:
        if method == "GET" and self._read_seconds is not None:
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, total=self._read_seconds)
        elif method == "GET":
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        else:
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, total=self._write_seconds)
        response = self._send(method, path, query, body, content_type, timeout)
        answer: Json = json.loads(response.data)
        return answer

    def _stream(self, path: str, query: Mapping[str, str], read_seconds: float | None) -> Generator[bytes]:
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        response = self._send("GET", path, query, None, _JSON, timeout, stream=True)
        try:
            yield from _lines(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionLost(0, "ConnectionLost", f"{self.server} stopped answering: {error}") from error
        finally:
            # Not back into the pool: an answer that was not read to its end would be taken for the next one's.
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content_type: str,
        timeout: urllib3.Timeout,
        *,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self.server}{path}?{urlencode(query)}" if query else f"{self.server}{path}"
        headers = {"Accept": "*/*" if stream else _JSON, "Content-Type": content_type, "User-Agent": self._field_manager}
        try:
            if (token := self.token()) is not None:
                headers["Authorization"] = token
            response: urllib3.BaseHTTPResponse = self._pool.request(
                method, url, body=body, headers=headers, timeout=timeout, preload_content=not stream
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._answered(method, path, "watch" in (query or ()), 0)
            raise Unavailable(0, "NoConnection", f"{self.server} cannot be reached: {error}") from error
        self._answered(method, path, "watch" in (query or ()), response.status)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            try:
                raise _response_error(response)
            finally:
                response.close()
        return response


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None if response.chunked else 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _response_error(response: urllib3.BaseHTTPResponse) -> ApiError:
    retry_after = response.headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdigit() else None
    try:
        status = json.loads(response.data)
    except ValueError:
        return api_error(response.status, response.reason or "", response.data.decode(errors="replace")[:1024], seconds)
    return _status_error(response.status, status, seconds)


def _status_error(code: int, status: Json, retry_after: float | None = None) -> ApiError:
    details = status.get("details") or {}
    causes = tuple(Cause(cause.get("field", ""), cause.get("message", "")) for cause in details.get("causes") or ())
    return api_error(code, status.get("reason", ""), status.get("message", ""), retry_after, causes)
