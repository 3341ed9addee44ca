"""A proxy in front of an API server, for one client: it answers with errors of its own, and lets watches fall silent.

Plain HTTP towards the client, so that it can tell one request from another; towards the server it is whoever the kubeconfig names.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cluster.api import Api


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """Without the query."""
    watch: bool

    @property
    def write(self) -> bool:
        return self.method != "GET"


@dataclass(frozen=True)
class Fault:
    """An answer that the server itself did not give."""

    status: int
    reason: str
    message: str = "injected by a test"
    after: bool = False
    """The request is done, and only its answer is lost; else it never arrives."""


class ApiProxy:
    """`fault` is asked about each request; None: it goes through."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.fault: Callable[[Asked], Fault | None] = lambda _: None
        self.silenced = 0
        """Watches that were opened before the last call of `silence` tell nothing any more."""
        self.watches = 0
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
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def silence(self) -> None:
        """Every watch that is open now stays open and tells nothing; those that are opened later work."""
        self.silenced = self.watches


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: ApiProxy

    def handle_error(self, *_: object) -> None:
        """Clients that are killed hang up in the middle."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        asked = Asked(self.command, parts.path, parse_qs(parts.query).get("watch") == ["true"])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.proxy.fault(asked)
        if fault is not None and not fault.after:
            self._answer(fault)
            return
        connection, headers = self.server.proxy.api.connection()
        try:
            sent = {"Content-Type": self.headers.get("Content-Type") or "application/json", "Accept": "application/json", **headers}
            connection.request(self.command, self.path, body or None, sent)
            upstream = connection.getresponse()
            if fault is not None:
                upstream.read()
                self._answer(fault)
            elif asked.watch and upstream.status == 200:
                self._stream(upstream)
            else:
                self._send(upstream.status, upstream.read())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - names of http.server

    def _stream(self, upstream: object) -> None:
        proxy = self.server.proxy
        proxy.watches += 1
        number = proxy.watches
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        with suppress(OSError):
            for line in upstream:  # type: ignore[attr-defined]
                if number > proxy.silenced:
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                    self.wfile.flush()
            if number > proxy.silenced:
                self.wfile.write(b"0\r\n\r\n")
        self.close_connection = number <= proxy.silenced

    def _answer(self, fault: Fault) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
        self._send(fault.status, json.dumps({**status, "reason": fault.reason, "message": fault.message}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Requests are counted where they are asked."""
