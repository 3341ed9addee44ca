"""Requests to one API server: TLS and credentials, patience, and errors for what it refuses.

TLS, authentication, exec plugins, proxies and the refresh of tokens are the kubernetes package's; requests go through its pool of
connections, without its thousands of model classes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

import urllib3
from kubernetes import config as kubernetes_config
from kubernetes.client import ApiClient, Configuration

from .errors import ApiError, Cause, ConnectionLost, NotConfigured, NotLeader, Unavailable, api_error
from .resources import Json

FIELD_MANAGER = "rlhf-operator"
_CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
#: Waits between the tries of a read; a write is never repeated here, for nobody knows whether the first one was done.
_WAITS = (0.1, 0.5, 1.5)
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Credentials:
    """How another HTTP client reaches the same server; its token changes, so `Transport.token` is asked for each request."""

    server: str
    ca_file: str | None
    client_certificate_file: str | None
    client_key_file: str | None
    verify: bool
    proxy: str | None


class Transport:
    """Sends requests and gives back JSON, or raises what `errors` has.

    `may_write` is asked before each write: a leader that lost its Lease stops there. A write is given up after `write_seconds`.
    A read with `read_seconds` is given up after so long and not repeated; without them it is patient. `answered` is told of each
    request: method, path, whether it is a watch, and the status (0: there was no answer).
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        namespace: str = "default",
        may_write: Callable[[], bool] = lambda: True,
        write_seconds: float = READ_SECONDS,
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

    def _write(
        self, method: str, path: str, body: Json, content_type: str = JSON_TYPE, query: Mapping[str, str] | None = None
    ) -> Json:
        if not self.may_write():
            raise NotLeader(f"{method} {path} was not sent: another process may be the leader now.")
        return self._request(method, path, query, json.dumps(body).encode(), content_type)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        content_type: str = JSON_TYPE,
    ) -> Json:
        if method == "GET" and self._read_seconds is not None:
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, total=self._read_seconds)
        elif method == "GET":
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=READ_SECONDS)
        else:
            timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, total=self._write_seconds)
        response = self._send(method, path, query, body, content_type, timeout)
        answer: Json = json.loads(response.data)
        return answer

    def _stream(self, path: str, query: Mapping[str, str], read_seconds: float | None) -> Generator[bytes]:
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds)
        response = self._send("GET", path, query, None, JSON_TYPE, timeout, stream=True)
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
        headers = {"Accept": "*/*" if stream else JSON_TYPE, "Content-Type": content_type, "User-Agent": self._field_manager}
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
    return status_error(response.status, status, seconds)


def status_error(code: int, status: Json, retry_after: float | None = None) -> ApiError:
    details = status.get("details") or {}
    causes = tuple(Cause(cause.get("field", ""), cause.get("message", "")) for cause in details.get("causes") or ())
    return api_error(code, status.get("reason", ""), status.get("message", ""), retry_after, causes)
