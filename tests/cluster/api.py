"""An API server by its kubeconfig: raw JSON in and out, for the tool itself and for the player.

It is not the operator's client on purpose: what the tests see must not depend on what they test.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from cluster.errors import ClusterError

Json = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
#: Long for an answer on a machine that builds something beside it.
_AGAIN_SECONDS = 0.2
_TIMEOUT_SECONDS = 30.0


class ApiError(ClusterError):
    """The API server refused; `status` is its HTTP status and `reason` its word for it (AlreadyExists, Conflict, …)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class Api:
    """Thread-safe: every thread has a connection of its own."""

    def __init__(self, kubeconfig: Path) -> None:
        cluster, user = _current(yaml.safe_load(kubeconfig.read_text()), kubeconfig)
        self.server = urlsplit(cluster["server"])
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._ssl = _context(cluster, user, kubeconfig) if self.server.scheme == "https" else None
        self._own = threading.local()

    def get(self, path: str, **query: str | int) -> Json:
        """A server that says to come back is asked again: so it answers while the storage of a CRD begins."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                return self.request("GET", path, query=query)
            except ApiError as error:
                if error.status != 429 or time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_SECONDS)

    def find(self, path: str) -> Json | None:
        """None where it is not."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Json) -> Json:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Json, content_type: str = STRATEGIC_PATCH) -> Json:
        return self.request("PATCH", path, body, content_type=content_type)

    def delete(self, path: str, **options: Any) -> Json | None:
        """`options` of DeleteOptions; None where it is gone already."""
        try:
            return self.request("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str | int] | None = None,
    ) -> Json:
        """One try more on a connection that the server has closed meanwhile. OSError where it cannot be reached."""
        target = f"{self.server.path.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": content_type, "Accept": "application/json"}
        for connection in (self._connection(), None):
            fresh = connection is None
            connection = connection or self._connect(_TIMEOUT_SECONDS)
            try:
                connection.request(method, target, content, headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._own.connection = None
                if fresh:
                    raise OSError(f"{self.server.geturl()} does not answer: {error}") from error
                continue
            self._own.connection = connection
            return _parsed(answer.status, text)
        raise AssertionError("never here")

    def watch(self, path: str, resource_version: str, **query: str | int) -> Watch:
        """What happens to the objects of a list after this version."""
        asked = {"watch": 1, "resourceVersion": resource_version, "allowWatchBookmarks": "true", **query}
        connection = self._connect(None)
        return Watch(connection, f"{self.server.path.rstrip('/')}{path}?{urlencode(asked)}", self._headers)

    def connection(self) -> tuple[http.client.HTTPConnection, Mapping[str, str]]:
        """One of the caller's own, for as long as it likes, and the headers that each request on it must have."""
        return self._connect(None), self._headers

    def _connection(self) -> http.client.HTTPConnection | None:
        return getattr(self._own, "connection", None)

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        host, port = self.server.hostname or "", self.server.port
        if self._ssl is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._ssl)


class Watch:
    """Iterates over (ADDED | MODIFIED | DELETED | BOOKMARK, object) until the server ends it or it is closed.

    ApiError 410 where the version is too old.
    """

    def __init__(self, connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]) -> None:
        self._connection = connection
        connection.request("GET", target, headers=dict(headers))
        self._socket = connection.sock

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        try:
            answer = self._connection.getresponse()
            if answer.status != 200:
                _parsed(answer.status, answer.read())
            for line in answer:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    _parsed(event["object"].get("code", 500), json.dumps(event["object"]).encode())
                yield event["type"], event["object"]
        except (OSError, ValueError, http.client.HTTPException):
            # Cut in the middle of a line: as good as at its end.
            return
        finally:
            self._connection.close()

    def close(self) -> None:
        """From another thread, too."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _parsed(status: int, text: bytes) -> Json:
    try:
        content = json.loads(text)
    except ValueError:
        content = {"message": text.decode(errors="replace")}
    if status >= 400:
        raise ApiError(status, content.get("reason", ""), content.get("message", ""))
    return content if isinstance(content, dict) else {"items": content}


def _current(config: Json, path: Path) -> tuple[Json, Json]:
    """Cluster and user of the current context."""

    def named(kind: str, name: str) -> Json:
        found = next((entry for entry in config.get(f"{kind}s") or [] if entry["name"] == name), None)
        if found is None:
            raise ClusterError(f"{path}: there is no {kind} {name!r} in it")
        return dict(found[kind])

    context = named("context", config.get("current-context") or "")
    user = named("user", context["user"])
    if not user.keys() & {"token", "client-certificate", "client-certificate-data"}:
        raise ClusterError(f"{path}: the tests need a user with a client certificate or a token, not a plugin")
    return named("cluster", context["cluster"]), user


def _context(cluster: Json, user: Json, path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=str(path.parent / cluster["certificate-authority"]) if "certificate-authority" in cluster else None,
        cadata=_decoded(cluster, "certificate-authority-data"),
    )
    # An authority made for one cluster need not name itself in its certificates.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _decoded(user, "client-certificate-data"), _decoded(user, "client-key-data")
    if certificate is not None and key is not None:
        # The library reads them from files only.
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(certificate + "\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    elif "client-certificate" in user:
        context.load_cert_chain(path.parent / user["client-certificate"], path.parent / user["client-key"])
    return context


def _decoded(entry: Json, field: str) -> str | None:
    return base64.b64decode(entry[field]).decode() if field in entry else None
