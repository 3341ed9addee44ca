"""The local backend keeps the contract of a backend."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from rlhf_api.words import StageName
from rlhf_operator.clock import SystemClock
from rlhf_operator.core.observed import Job
from rlhf_operator.local import LocalEventKind, LocalState
from rlhf_operator.local.backend import LocalBackend
from rlhf_operator.local.processes.launcher import GuardedLauncher
from rlhf_operator.local.processes.machine import Machine
from support.backend_contract import BackendContract, Harness, contract_run, launched
from support.local_runs import LocalWorld, alive, fake_command, wait_until


class LocalHarness(Harness):
    def __init__(self, folder: Path, before: Callable[[LocalState], object] = lambda _: None) -> None:
        """`before` is done between the manifest's acceptance and the backend's first look."""
        self.world = LocalWorld(folder)
        self.clock = SystemClock()
        self.launcher = GuardedLauncher()
        self.wake = threading.Event()
        run = contract_run(self.world.state.store_url)
        accepted = self.world.state.accept(run, self.clock.now())
        before(self.world.state)
        self.local = LocalBackend(
            accepted,
            self.world.state,
            command=fake_command,
            launcher=self.launcher,
            machine=Machine(cores=4, gpus=0, memory=lambda: 2**40, oom_kills=lambda: 0),
            clock=self.clock,
            cpu=True,
            listener=self.world.events.append,
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


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[LocalHarness]:
    harness = LocalHarness(tmp_path)
    yield harness
    harness.close()


class TestLocalBackend(BackendContract):
    """With the fixture above."""


def test_what_is_closed_starts_nothing_more(harness: LocalHarness) -> None:
    for index in (0, 1):
        harness.plan(f"sample-1-{index}", "hang")
    assert harness.apply(*launched(harness.seen().run, StageName.SAMPLE))
    wait_until(lambda: len(harness.world.notes("hanging")) == 2, "both shards")
    harness.local.close()
    assert harness.world.starts() == ["sample-1", "sample-1"]
    assert not any(alive(int(pid)) for pid in harness.world.notes("hanging"))


def test_a_manifest_that_a_newer_version_edits_is_told_once_and_the_run_goes_on_by_the_former(harness: LocalHarness) -> None:
    before = harness.seen().run.spec
    path = harness.world.state.run_folder("tiny") / "run.yaml"
    fields = yaml.safe_load(path.read_text())
    fields["spec"]["warmth"] = 3
    path.write_text(yaml.safe_dump(fields))
    assert harness.seen().run.spec == before
    assert harness.seen().run.spec == before
    [told] = [event.message for event in harness.world.events if event.kind is LocalEventKind.WARNING]
    assert "spec has a field 'warmth'" in told


def test_a_change_between_the_manifest_and_the_first_round_is_seen(tmp_path: Path) -> None:
    harness = LocalHarness(
        tmp_path, before=lambda state: state.edit("tiny", lambda spec: spec.model_copy(update={"suspend": True}))
    )
    try:
        assert harness.seen().run.spec.suspend
    finally:
        harness.close()
