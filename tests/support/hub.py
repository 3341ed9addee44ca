"""A hub with one repository, on this machine: lists its files, and gives them whole or in parts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from support.http_server import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "owner/name"


@dataclass
class Hub:
    """sent: bytes of the answers' bodies, by path in the repository."""

    url: str
    sent: dict[str, int] = field(default_factory=dict)


@contextmanager
def hub_with(folder: Path, *, ranges: bool = True) -> Iterator[Hub]:
    """hf://owner/name, as a model and as a data set, has the files of `folder`.

    Without `ranges` it answers with the whole file, as some mirrors do.
    """
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            if re.match(f"/api/(models|datasets)/{NAME}", self.path):
                names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
                tree = [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": n} for n in names]
                info = {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self._send(200, json.dumps(tree if "/tree/" in self.path else info).encode(), {})
                return
            name = self.path.removeprefix("/datasets").removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            data = (folder / name).read_bytes()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
            status, part = 200, data
            if asked is not None:
                start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
                status, part = 206, data[start:end]
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            if body:
                hub.sent[name] = hub.sent.get(name, 0) + len(part)
            self._send(status, part, headers, body=body)

        def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True) -> None:
            self.send_response(status)
            for header, value in (("Content-Length", str(len(data))), *headers.items()):
                self.send_header(header, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    with serving(Handler) as hub.url:
        yield hub
