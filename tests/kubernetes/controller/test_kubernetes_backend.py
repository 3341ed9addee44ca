"""The Kubernetes backend keeps the contract of a backend, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.handle import Cluster
from rlhf_operator.clock import SystemClock
from rlhf_operator.core.observed import Job
from support.backend_contract import SPEC, BackendContract, Harness
from support.kubernetes_world import KubernetesWorld, played
from support.player import Player

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]


class KubernetesHarness(Harness):
    def __init__(self, world: KubernetesWorld, player: Player) -> None:
        self.world = world
        self.backend = world.backend
        self.clock = SystemClock()
        self.player = player

    def plan(self, stage: str, *plans: str) -> None:
        self.player.plan(stage, *plans)

    def wait(self) -> None:
        self.player.wait()
        self.world.tell_index()

    def kill(self, job: Job) -> None:
        self.player.kill(job.name)

    def reached(self, job: Job) -> bool:
        """Its pods come a moment after the Job."""
        return bool(job.pods)


class TestKubernetesBackend(BackendContract):
    @pytest.fixture
    def harness(self, cluster: Cluster, namespace: str) -> Iterator[KubernetesHarness]:
        with Player(cluster.api, namespace) as player:
            yield KubernetesHarness(KubernetesWorld(cluster, namespace, played(**SPEC)), player)
