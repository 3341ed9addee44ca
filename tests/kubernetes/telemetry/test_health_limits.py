"""The health server under many connections."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from urllib.request import urlopen

from rlhf_operator.kubernetes.telemetry.health import HealthServer, Heartbeats, Readiness
from support.waiting import wait_until


def test_connections_beyond_the_limit_are_hung_up_on_and_their_places_come_free() -> None:
    server = HealthServer(
        "127.0.0.1", 0, heartbeats=Heartbeats(lambda: 0.0), readiness=Readiness(), leading=lambda: True, metrics=lambda: b"x 1\n"
    )
    server.start()

    def answers() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{server.port}/livez", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        assert answers()
        with ExitStack() as open_ones:
            for _ in range(32):
                open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            one_more = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            assert one_more.recv(1) == b""
        wait_until(answers, "the places to come free")
    finally:
        server.stop()
