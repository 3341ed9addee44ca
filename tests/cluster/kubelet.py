"""`kubectl logs` of simulated pods: answers the API server for every simulated node, from files that tests write.

    python kubelet.py HOST PORT CERTIFICATE KEY FOLDER

The log of a container is FOLDER/<namespace>/<pod>.log. It ends where `<pod>.ended` lies beside it; until then a client that follows
waits for more. A pod without a file has one line. With `timestamps` lines 2n and 2n + 1 are of second n of a day that is always the
same, so that `sinceTime` cuts where a test can count: runtimes, too, give one time to lines that come together.

Standard library only: it runs for as long as the cluster does.
"""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

#: How soon a line that was written is seen by who follows.
_INTERVAL_SECONDS = 0.05
#: The day of all logs.
DAY = datetime(2026, 3, 1, tzinfo=UTC)


class Kubelet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["healthz"]:
                self._answer(200, [b"ok"])
            case ["containerLogs", namespace, pod, _]:
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                self._answer(200, self._log(self.folder / namespace / f"{pod}.log", pod, query))
            case _:
                self._answer(404, [b"a simulated node has logs only\n"])

    def _log(self, file: Path, pod: str, query: dict[str, str]) -> Iterator[bytes]:
        content = file.read_bytes() if file.exists() else f"{pod}: simulated\n".encode()
        written = _Written(query)
        shown = written.shown(content)
        if "tailLines" in query:
            shown = b"".join(content.splitlines(keepends=True)[-int(query["tailLines"]) or len(content) :])
        if "limitBytes" in query:
            shown = shown[: int(query["limitBytes"])]
        if shown:
            yield shown
        position = len(content)
        while query.get("follow") == "true" and file.exists():
            # First whether it is the end: what was written before it must still be read.
            ended = file.with_suffix(".ended").exists()
            with file.open("rb") as log:
                log.seek(position)
                more = log.read()
            # A line that is half written has no time yet.
            more = more[: more.rfind(b"\n") + 1]
            position += len(more)
            if more := written.shown(more):
                yield more
            if ended:
                return
            time.sleep(_INTERVAL_SECONDS)

    def _answer(self, status: int, parts: Iterator[bytes] | list[bytes]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """The requests of the tests are no news."""


class _Written:
    """What a client sees of the lines of one log, in the order in which they come."""

    def __init__(self, query: dict[str, str]) -> None:
        self._timed = query.get("timestamps") == "true"
        since = query.get("sinceTime")
        self._since = datetime.fromisoformat(since) if since else DAY
        self._lines = 0

    def shown(self, content: bytes) -> bytes:
        shown = []
        for line in content.splitlines(keepends=True):
            moment = DAY + timedelta(seconds=self._lines // 2)
            self._lines += 1
            if moment >= self._since:
                stamp = f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.5Z ".encode() if self._timed else b""
                shown.append(stamp + line)
        return b"".join(shown)


def main(host: str, port: str, certificate: str, key: str, folder: str) -> None:
    Kubelet.folder = Path(folder)
    server = ThreadingHTTPServer((host, int(port)), Kubelet)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
