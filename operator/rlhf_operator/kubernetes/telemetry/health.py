"""/livez, /readyz and /metrics: does it live, may it be counted on, what does it measure.

Alive: everything that must come round again and again has done so lately. A pod that is not is restarted, so nothing counts here
that a restart would not mend: an API server that is away does not. Ready: the index is filled; leader and standby alike, for a
standby that were not ready would hold up a rollout.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, has_dualstack_ipv6
from typing import Any, ClassVar

from prometheus_client import CONTENT_TYPE_LATEST

#: Answered at the same time: probes, scrapers and people are fewer by far.
_CONNECTIONS = 32


class Heartbeats:
    """Who must beat how often. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limits: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def expect(self, name: str, within: float) -> None:
        """From now on `name` must beat at least every `within` seconds. Said again it is no beat: what begins again and again does
        not live.
        """
        with self._lock:
            self._limits[name] = within
            self._last.setdefault(name, self._clock())

    def beat(self, name: str) -> None:
        """A beat of somebody that is not expected counts for nothing."""
        with self._lock:
            if name in self._limits:
                self._last[name] = self._clock()

    def silent(self) -> dict[str, float]:
        """Who has been silent for too long, and for how many seconds."""
        with self._lock:
            now = self._clock()
            return {name: now - last for name, last in self._last.items() if now - last > self._limits[name]}


class Readiness:
    """What has to be there before the operator can be counted on."""

    def __init__(self) -> None:
        self.indexed = threading.Event()
        """Every kind was listed once."""
        self.watching = threading.Event()
        """Every watch has been answered once."""
        self.stopping = threading.Event()

    def problem(self) -> str | None:
        if self.stopping.is_set():
            return "stopping"
        if not self.indexed.is_set():
            return "the index is not filled yet"
        return None if self.watching.is_set() else "not every watch has begun yet"


class HealthServer:
    """Answers on a thread of its own. `port` is the one that it really has."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        heartbeats: Heartbeats,
        readiness: Readiness,
        leading: Callable[[], bool],
        metrics: Callable[[], bytes],
    ) -> None:
        def live() -> tuple[HTTPStatus, str]:
            silent = heartbeats.silent()
            lines = [f"{name}: silent for {seconds:.0f} s" for name, seconds in sorted(silent.items())]
            return (HTTPStatus.SERVICE_UNAVAILABLE if lines else HTTPStatus.OK), "\n".join(lines) or "ok"

        def ready() -> tuple[HTTPStatus, str]:
            problem = readiness.problem()
            if problem is not None:
                return HTTPStatus.SERVICE_UNAVAILABLE, problem
            return HTTPStatus.OK, "ok, leader" if leading() else "ok, standby"

        class Handler(_Handler):
            checks: ClassVar[dict[str, Callable[[], tuple[HTTPStatus, str]]]] = {"/livez": live, "/readyz": ready}

            def page(self) -> bytes:
                return metrics()

        self._server = _server_class(host)((host, port), Handler)
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    """Without a host every address of the machine counts, IPv6 too where it has any."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        _free = threading.BoundedSemaphore(_CONNECTIONS)
        address_family = AF_INET6 if ":" in host or (not host and has_dualstack_ipv6()) else AF_INET

        def server_bind(self) -> None:
            if self.address_family == AF_INET6 and not host:
                self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
            super().server_bind()

        def process_request(self, request: Any, client_address: Any) -> None:
            """One too many is hung up on: a thread for whoever connects would let anybody fill the memory."""
            if self._free.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self._free.release()

    return Server


class _Handler(BaseHTTPRequestHandler):
    checks: ClassVar[dict[str, Callable[[], tuple[HTTPStatus, str]]]]
    timeout = 10

    def page(self) -> bytes:
        raise NotImplementedError

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, self.page())
        elif path in self.checks:
            code, text = self.checks[path]()
            self._answer(code, "text/plain; charset=utf-8", f"{text}\n".encode())
        else:
            known = json.dumps(["/metrics", *self.checks])
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"There is {known}.\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """A probe every few seconds is no news."""

    def _answer(self, code: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
