"""Devices of one machine: who has which, who waits, and what comes back when a process is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.local.processes.leases import Devices, Leases
from rlhf_operator.local.processes.machine import Machine
from support.local_runs import LocalWorld, ShiftedClock, wait_until
from support.runs import BENCHMARKED

TESTS = Path(__file__).parents[2]
ONE_GPU: dict[str, Any] = {"pod": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}


def machine(gpus: int) -> Machine:
    return Machine(cores=8, gpus=gpus, memory=lambda: 2**40, oom_kills=lambda: 0)


def visible(pid: str) -> str | None:
    """What a process that is alive has of the machine."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry).get("CUDA_VISIBLE_DEVICES")


def status_of(world: LocalWorld) -> RLHFRunStatus:
    names = world.state.names()
    return (world.state.load(names[0]).status if names else None) or RLHFRunStatus()


def test_what_is_held_is_nobody_elses_until_it_is_given_back() -> None:
    leases = Leases(["0", "1", "2"])
    assert leases.take("a", 2) == ("0", "1")
    assert leases.take("a", 2) == ("0", "1"), "asked again"
    assert leases.take("b", 2) is None
    assert leases.take("b", 1) == ("2",)
    leases.give_back("a")
    leases.give_back("a")
    leases.give_back("nobody")
    assert leases.free() == 2
    assert leases.take("c", 2) == ("0", "1")


def test_the_supervisors_own_part_is_what_it_leases_from() -> None:
    assert Devices(machine(2), {"CUDA_VISIBLE_DEVICES": "3,5"})._gpus.take("a", 2) == ("3", "5")
    assert Devices(machine(0), {"CUDA_VISIBLE_DEVICES": ""})._gpus.free() == 0
    assert Devices(machine(2), {})._gpus.take("a", 2) == ("0", "1")


def test_shards_see_a_gpu_each_and_one_more_waits_for_its_turn(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    for shard in range(3):
        world.plan(f"sample-1-{shard}", "progress 1 2")
    manifest = world.manifest(sample={"shards": 3, "parallelism": 3, **ONE_GPU})
    run = world.in_background(manifest, cpu=False, machine=machine(2))
    wait_until(lambda: len(world.notes("hanging")) == 2, "two shards")
    assert sorted(visible(pid) or "" for pid in world.notes("hanging")) == ["0", "1"]
    assert world.starts().count("sample-1") == 2
    (tmp_path / "fake" / "go-on").touch()
    done = run.result()
    assert done.status is not None
    assert done.status.phase is Phase.SUCCEEDED
    assert world.starts().count("sample-1") == 3


def test_a_benchmark_runs_beside_the_chain_on_a_gpu_of_its_own(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1", "progress 1 2")
    world.plan("benchmark-0", "progress 1 2")
    manifest = world.manifest(sample=ONE_GPU, evaluate={**BENCHMARKED, **ONE_GPU})
    run = world.in_background(manifest, cpu=False, machine=machine(2))
    wait_until(lambda: len(world.notes("hanging")) == 2, "both")
    assert sorted(visible(pid) or "" for pid in world.notes("hanging")) == ["0", "1"]
    (tmp_path / "fake" / "go-on").touch()
    assert run.result().status.phase is Phase.SUCCEEDED  # type: ignore[union-attr]


def test_without_a_gpu_to_spare_a_benchmark_waits_and_says_for_what(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1", "progress 1 2")
    manifest = world.manifest(sample=ONE_GPU, evaluate={**BENCHMARKED, **ONE_GPU}, pendingDeadlineSeconds=1)
    run = world.in_background(manifest, cpu=False, machine=machine(1))
    words = "Stage benchmark of pi_0 waits: it wants 1 of this machine's GPUs to begin, and 0 are free now."
    wait_until(lambda: words in status_of(world).message, "these words")
    (tmp_path / "fake" / "go-on").touch()
    status = run.result().status
    assert status is not None
    assert status.phase is Phase.SUCCEEDED
    assert [stage.phase for _, stage in stages_of(status) if stage.name is StageName.BENCHMARK] == [Phase.SUCCEEDED] * 2


def test_on_cores_alone_one_stage_computes_at_a_time(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1-0", "progress 1 2")
    world.plan("sample-1-1", "progress 1 2")
    manifest = world.manifest(sample={"shards": 2, "parallelism": 2}, evaluate=BENCHMARKED)
    run = world.in_background(manifest)
    wait_until(lambda: "waits: another stage of this run has the cores" in status_of(world).message, "a benchmark that waits")
    wait_until(lambda: len(world.notes("hanging")) == 2, "both shards of the one stage")
    assert "benchmark-0" not in world.starts()
    (tmp_path / "fake" / "go-on").touch()
    assert run.result().status.phase is Phase.SUCCEEDED  # type: ignore[union-attr]
    assert world.starts().count("benchmark-0") == 1


def test_the_lease_of_a_killed_process_comes_back(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1", "hang")
    run = world.in_background(world.manifest(sample=ONE_GPU, evaluate={**BENCHMARKED, **ONE_GPU}), cpu=False, machine=machine(1))
    os.kill(world.hanging(), signal.SIGKILL)
    assert run.result().status.phase is Phase.SUCCEEDED  # type: ignore[union-attr]


def test_a_paused_run_is_driven_on_while_something_is_beside_it(tmp_path: Path) -> None:
    """And then it is left to who decides."""
    world = LocalWorld(tmp_path)
    world.plan("benchmark-1", "exit 1")
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.1, "action": "Pause"}]
    status = world.run(world.manifest(evaluate=BENCHMARKED, gates=gates)).status
    assert status is not None
    assert status.phase is Phase.PAUSED
    done = {(iteration, stage.name): stage.phase for iteration, stage in stages_of(status)}
    assert done[1, StageName.BENCHMARK] is Phase.SUCCEEDED
    assert done[None, StageName.BENCHMARK] is Phase.SUCCEEDED


def test_what_waits_for_a_lease_when_its_supervisor_dies_costs_nothing_that_was_made(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1", "hang")
    manifest = world.manifest(evaluate=BENCHMARKED)
    run = world.in_background(manifest)
    world.hanging()
    world.stop.set()
    stopped = run.result().status
    assert stopped is not None
    assert stopped.phase is Phase.SUSPENDED
    world.stop.clear()
    status = world.run(manifest).status
    assert status is not None
    assert status.phase is Phase.SUCCEEDED


def test_what_never_began_when_its_supervisor_was_killed_has_used_no_budget_and_no_time(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("sample-1", "hang")
    child = subprocess.Popen([sys.executable, "-c", _SUPERVISOR, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(TESTS)})
    try:
        world.hanging()
        wait_until(lambda: "has the cores" in status_of(world).message, "a benchmark that waits")
    finally:
        child.kill()
        child.wait()
    began = datetime.now(UTC)
    ahead = ShiftedClock(timedelta(days=2))
    status = world.run(world.manifest(evaluate=BENCHMARKED), clock=ahead).status
    assert status is not None
    assert status.phase is Phase.SUCCEEDED
    [benchmark] = [stage for stage in status.stages if stage.name is StageName.BENCHMARK]
    assert (benchmark.infrastructure_retries, benchmark.application_retries) == (0, 0)
    assert benchmark.queue_seconds < (datetime.now(UTC) - began).total_seconds() + 1
    assert [start for start in world.starts() if start.endswith("benchmark-0")] == ["benchmark-0"]


def test_how_many_go_at_a_time_is_decided_by_what_is_free_when_they_begin(tmp_path: Path) -> None:
    """Not by what another stage has taken while they waited."""
    free = [2**40]
    world = LocalWorld(tmp_path)
    world.plan("benchmark-0", "progress 1 2")
    world.plan("sample-1", "exit 1")
    for shard in range(4):
        world.plan(f"label-1-{shard}", "progress 1 2")
    own = Machine(cores=8, gpus=0, memory=lambda: free[0], oom_kills=lambda: 0)
    run = world.in_background(world.manifest(label={"shards": 4, "parallelism": 4}, evaluate=BENCHMARKED), machine=own)
    wait_until(lambda: len(world.notes("hanging")) == 1, "the benchmark")
    free[0] = 2**20
    wait_until(lambda: "label of iteration 1 of 1 waits" in status_of(world).message, "labels that wait")
    free[0] = 2**40
    (tmp_path / "fake" / "go-on").touch()
    assert run.result().status.phase is Phase.SUCCEEDED  # type: ignore[union-attr]
    assert len(world.notes("hanging")) == 5


_SUPERVISOR = """
import sys
from pathlib import Path
from support.local_runs import LocalWorld
from support.runs import BENCHMARKED
world = LocalWorld(Path(sys.argv[1]))
world.run(world.manifest(evaluate=BENCHMARKED))
"""
