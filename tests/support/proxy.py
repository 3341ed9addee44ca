"""A TCP proxy. It loses one answer: the request arrives and is done, and the connection ends before the client hears of it; or it
counts what the server sends.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Protocol


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: tuple[str, int], request: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.request_line = re.compile(request or b"")
        self.armed = request is not None
        self.sent = 0
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: _Proxy
    request: socket.socket

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            doomed = threading.Event()
            back = threading.Thread(target=self._answers, args=(upstream, doomed))
            back.start()
            with contextlib.suppress(OSError):
                while data := self.request.recv(1 << 16):
                    if self.server.armed and self.server.request_line.search(data):
                        self.server.armed = False
                        doomed.set()
                    upstream.sendall(data)
                upstream.shutdown(socket.SHUT_WR)
            back.join()

    def _answers(self, upstream: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(1 << 16):
                # "100 Continue" is not the answer yet.
                if doomed.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    break
                with self.server.counting:
                    self.server.sent += len(data)
                self.request.sendall(data)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def loses_answer(port: int, request: bytes) -> Iterator[str]:
    """The endpoint URL of a proxy to `port`; the first request whose head matches `request` is not answered."""
    with _running(_Proxy(("127.0.0.1", port), request)) as proxy:
        yield proxy.url
        assert not proxy.armed, "no request matched"


class Counter(Protocol):
    """sent: bytes of the server's answers so far, with their heads."""

    @property
    def url(self) -> str: ...

    sent: int


@contextlib.contextmanager
def counts_answers(port: int) -> Iterator[Counter]:
    """A proxy to `port`."""
    with _running(_Proxy(("127.0.0.1", port), None)) as proxy:
        yield proxy


@contextlib.contextmanager
def _running(proxy: _Proxy) -> Iterator[_Proxy]:
    thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
