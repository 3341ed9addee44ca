"""The local backend keeps the contract of a backend."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_operator.core.observed import Job
from rlhf_operator.local.backend import LocalBackend
from rlhf_operator.local.launcher import GuardedLauncher
from rlhf_operator.local.machine import Machine
from rlhf_operator.local.supervise import SystemClock
from support.backend_contract import BackendContract, Harness, contract_run
from support.local_runs import LocalWorld, fake_command


class LocalHarness(Harness):
    def __init__(self, folder: Path) -> None:
        self.world = LocalWorld(folder)
        self.clock = SystemClock()
        self.launcher = GuardedLauncher()
        self.wake = threading.Event()
        run = contract_run(self.world.state.store_url)
        self.world.state.lock_file(run.metadata.name)
        self.local = LocalBackend(
            self.world.state.accept(run, self.clock.now()),
            self.world.state,
            command=fake_command,
            launcher=self.launcher,
            machine=Machine(cores=4, gpus=0, memory=lambda: 2**40, oom_kills=lambda: 0),
            clock=self.clock,
            cpu=True,
            listener=lambda _: None,
            wake=self.wake,
        )
        self.backend = self.local

    def plan(self, stage: str, *plans: str) -> None:
        self.world.plan(stage, *plans)

    def wait(self) -> None:
        self.wake.wait(0.005)
        self.wake.clear()

    def kill(self, job: Job) -> None:
        os.kill(self.world.hanging(), signal.SIGKILL)

    def reached(self, job: Job) -> bool:
        return bool(self.world.notes("hanging"))

    def close(self) -> None:
        self.local.close()
        self.launcher.close()


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[LocalHarness]:
        harness = LocalHarness(tmp_path)
        yield harness
        harness.close()
