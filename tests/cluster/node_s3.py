"""The S3 server beside a real node: at the node's address, where pods and tests reach it under one URL."""

from __future__ import annotations

from cluster.layout import Layout
from cluster.machine import Machine
from support.s3 import S3Place

_PORT = 7070


class NodeS3(S3Place):
    """Its keys are those of support/s3.py; `outage` of the node's cluster takes it away."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.s3, f"http://{layout.addresses.host}:{_PORT}")
        self._component = layout.component("s3")

    def create(self, own: Machine) -> None:
        """Its first start; `answers` says when it is ready."""
        self._component.start([*own.in_network(), *self.command()])
