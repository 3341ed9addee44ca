"""A server with OpenAI's chat completions that answers as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from .http_server import serving


@dataclass(frozen=True)
class Reply:
    """One answer over HTTP. `cut`: the connection ends after so many bytes of the body."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def said(text: str | None, finish_reason: str = "stop", **message: Any) -> Reply:
    """A chat completion."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    return Reply(body=json.dumps({"id": "c", "object": "chat.completion", "model": "judge", "choices": [choice]}).encode())


def wrong(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error in OpenAI's form."""
    return Reply(status, json.dumps({"error": {"message": message, "code": code}}).encode(), headers)


@dataclass
class ChatServer:
    """url: its base, for an endpoint. asked: the body of each request; keys: what each was sent with."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def chat_server(reply: Callable[[str, int], Reply]) -> Iterator[ChatServer]:
    """`reply` is told the question, and how many requests came before."""
    server = ChatServer("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                count = len(server.asked)
                server.asked.append(body)
                server.keys.append(self.headers.get("Authorization"))
            found = reply(body["messages"][-1]["content"], count) if self.path == "/v1/chat/completions" else wrong(404)
            self.send_response(found.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(found.body)))
            for name, value in found.headers.items():
                self.send_header(name.replace("_", "-"), value)
            # Who waited no longer is gone.
            with suppress(OSError):
                self.end_headers()
                self.wfile.write(found.body[: found.cut])
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Nothing: a test's output is its own."""

    with serving(Handler) as url:
        server.url = f"{url}/v1"
        yield server
