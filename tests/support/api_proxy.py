"""A proxy in front of an API server, for one client: it answers with errors of its own, cuts connections, lets watches fall silent,
and tells their events twice and in another order.

Plain HTTP towards the client, so that it can tell one request from another; towards the server it is whoever the kubeconfig names.
"""

from __future__ import annotations

import heapq
import http.client
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cluster.api import Api, Json

#: Of a path: `/api/v1/namespaces/NS/pods/NAME/status`, `/apis/GROUP/VERSION/namespaces/NS/RESOURCE/NAME`.
_NAMESPACES = "/namespaces/"


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """Without the query."""
    watch: bool
    target: str = field(default="", repr=False)
    """With the query."""
    content_type: str = field(default="application/json", repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def write(self) -> bool:
        return self.method != "GET"

    @property
    def name(self) -> str:
        """Of the object that a write is about: in its path, or in what is to be created."""
        return str(self.json["metadata"]["name"]) if self.method == "POST" else self.path.removesuffix("/status").rpartition("/")[2]

    @property
    def json(self) -> Json:
        return dict(json.loads(self.body)) if self.body else {}

    @property
    def resource(self) -> str:
        """`jobs`, `rlhfruns/status`."""
        _, _, inside = self.path.partition(_NAMESPACES)
        _, resource, *rest = f"{inside or self.path}/".split("/")
        return f"{resource}/{rest[1]}" if len(rest) > 1 and rest[1] else resource


@dataclass(frozen=True)
class Fault:
    """An answer that the server itself did not give."""

    status: int
    reason: str
    message: str = "injected by a test"
    after: bool = False
    """The request is done, and only its answer is lost; else it never arrives."""
    retry_after: int | None = None
    """Seconds."""


@dataclass(frozen=True)
class Cut:
    """No answer: the connection is reset."""

    after: bool = False
    """The request is done all the same."""
    then: Callable[[], None] = lambda: None
    """What is done before the client can know of it."""


@dataclass(frozen=True)
class Write:
    """One that has reached the server."""

    asked: Asked
    status: int
    """The server's own answer."""


#: At which delays, in seconds, an event of a watch is told; twice for two of them, never for none.
Delays = Callable[[Json], Sequence[float]]


class ApiProxy:
    """`fault` is asked about each request; None: it goes through. `delays`: None, for events as they come."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.fault: Callable[[Asked], Fault | Cut | None] = lambda _: None
        self.delays: Delays | None = None
        self.silenced = 0
        """Watches that were opened before the last call of `silence` tell nothing any more."""
        self.watches = 0
        self.writes: list[Write] = []
        """In the order in which they were answered, those with faults too."""
        self.streams: set[http.client.HTTPConnection] = set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.kubeconfig = folder / "proxied.conf"
        server = {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "proxied",
                    "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
                    "clusters": [{"name": "proxied", "cluster": server}],
                    "users": [{"name": "proxied", "user": {}}],
                }
            )
        )

    def __enter__(self) -> ApiProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def deliver(self, asked: Asked) -> None:
        """As a network does with what it has held back; nobody waits for the answer."""
        connection, _ = self.api.connection()
        try:
            answer = self.send(connection, asked)
            answer.read()
            self.writes.append(Write(asked, answer.status))
        finally:
            connection.close()

    def send(self, connection: http.client.HTTPConnection, asked: Asked) -> http.client.HTTPResponse:
        _, headers = self.api.connection()
        sent = {"Content-Type": asked.content_type, "Accept": "application/json", **headers}
        connection.request(asked.method, asked.target, asked.body or None, sent)
        return connection.getresponse()

    def hang_up(self) -> None:
        """The client is dead: what it watched is not asked for any more."""
        for connection in list(self.streams):
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Every watch that is open now stays open and tells nothing; those that are opened later work."""
        self.silenced = self.watches


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: ApiProxy

    def handle_error(self, *_: object) -> None:
        """Clients that are killed hang up in the middle."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of the client, and the one to the server that belongs to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _upstream: http.client.HTTPConnection | None = None

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content_type = self.headers.get("Content-Type") or "application/json"
        asked = Asked(self.command, parts.path, parse_qs(parts.query).get("watch") == ["true"], self.path, content_type, body)
        fault = self.server.proxy.fault(asked)
        if fault is not None and not fault.after:
            self._injected(fault)
            return
        try:
            upstream = self._forwarded(asked)
            if asked.watch and upstream.status == 200:
                self._stream(upstream)
                return
            content = upstream.read()
            if asked.write:
                self.server.proxy.writes.append(Write(asked, upstream.status))
            if fault is None:
                self._send(upstream.status, content, upstream.getheader("Retry-After"))
            else:
                self._injected(fault)
        except (OSError, http.client.HTTPException):
            # The server hung up: so does the proxy.
            self._reset()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - names of http.server

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with suppress(OSError):
            super().finish()

    def _forwarded(self, asked: Asked) -> http.client.HTTPResponse:
        if self._upstream is None or not _is_idle(self._upstream.sock):
            self._upstream, _ = self.server.proxy.api.connection()
        return self.server.proxy.send(self._upstream, asked)

    def _stream(self, upstream: http.client.HTTPResponse) -> None:
        proxy = self.server.proxy
        proxy.watches += 1
        number = proxy.watches
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        said = threading.Lock()

        def say(line: bytes) -> None:
            if number > proxy.silenced:
                with said:
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                    self.wfile.flush()

        assert self._upstream is not None
        proxy.streams.add(self._upstream)
        try:
            with suppress(OSError), _Later(say) as later:
                for line in upstream:
                    delays = None if proxy.delays is None else proxy.delays(json.loads(line))
                    if delays is None:
                        say(line)
                    else:
                        later.say(line, delays)
                if number > proxy.silenced:
                    self.wfile.write(b"0\r\n\r\n")
        finally:
            proxy.streams.discard(self._upstream)

    def _injected(self, fault: Fault | Cut) -> None:
        if isinstance(fault, Cut):
            fault.then()
            self._reset()
            return
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
        content = json.dumps({**status, "reason": fault.reason, "message": fault.message}).encode()
        self._send(fault.status, content, None if fault.retry_after is None else str(fault.retry_after))

    def _send(self, status: int, content: bytes, retry_after: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Requests are counted where they are asked."""


class _Later:
    """Says lines at their times. A context manager; what is not said at its end never is."""

    def __init__(self, say: Callable[[bytes], None]) -> None:
        self._say = say
        self._changed = threading.Condition()
        self._lines: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._over = False

    def __enter__(self) -> _Later:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()

    def say(self, line: bytes, delays: Sequence[float]) -> None:
        with self._changed:
            if self._count == 0:
                threading.Thread(target=self._run, daemon=True).start()
            for delay in delays:
                self._count += 1
                heapq.heappush(self._lines, (time.monotonic() + delay, self._count, line))
            self._changed.notify()

    def _run(self) -> None:
        with suppress(OSError, ValueError):
            while (line := self._next()) is not None:
                self._say(line)

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._over:
                now = time.monotonic()
                if self._lines and self._lines[0][0] <= now:
                    return heapq.heappop(self._lines)[2]
                self._changed.wait(self._lines[0][0] - now if self._lines else None)
        return None


def _is_idle(sock: socket.socket | None) -> bool:
    """It can take another request: the server has not hung up."""
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)
