"""The S3 server beside a real node: at the node's address, where pods and tests reach it under one URL."""

from __future__ import annotations

import signal

from cluster.layout import Layout
from cluster.machine import Machine
from cluster.readiness import wait_for
from support.s3 import S3Place

_PORT = 7070


class NodeS3(S3Place):
    """Can be stopped, killed, paused and started again on the same data. Its keys are those of support/s3.py."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.s3, f"http://{layout.addresses.host}:{_PORT}")
        self._component = layout.component("s3")

    def create(self, own: Machine) -> None:
        """Its first start; `wait` says when it answers."""
        self._component.start([*own.in_network(), *self.command()])

    def wait(self) -> None:
        wait_for(self._component, self.answers)

    def start(self) -> NodeS3:
        """Again, as it was; one that runs stays as it is."""
        if not self._component.running:
            self._component.restart()
        self.wait()
        return self

    def ensure_running(self) -> None:
        """After a test that may have failed while it was away or silent."""
        self.go_on()
        self.start()

    def stop(self) -> None:
        self._component.stop()

    def kill(self) -> None:
        self._component.kill()

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        self._component.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._component.signal(signal.SIGCONT)
