"""How much of a machine an attempt takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.status import StageStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.jobs.launch import launch
from rlhf_operator.core.plan.planner import Planner
from rlhf_operator.local.processes.machine import Machine, this_machine
from rlhf_operator.local.processes.sizing import at_a_time, gpus, threads
from support.local_runs import LocalWorld
from support.runs import RUN, spec_of, walk

GIB = 2**30


def action(stage: StageName, *, allow_cpu: bool = False, **changes: Any) -> CreateJob:
    planner = Planner(RUN, spec_of(**changes), allow_cpu=allow_cpu)
    config = next(config for config in walk(planner)[0] if config.stage is stage)
    actions = launch(planner.spec, config, stage, StageStatus(name=stage, phase=Phase.PENDING, attempt=1), None)
    return next(made for made in actions if isinstance(made, CreateJob))


def machine(cores: int = 16, memory: int = 64 * GIB, count: int = 0) -> Machine:
    return Machine(cores, count, lambda: memory, lambda: 0)


def sample(parallelism: int = 8, **resources: Any) -> CreateJob:
    return action(StageName.SAMPLE, sample={"shards": 8, "parallelism": parallelism, "pod": {"resources": resources}})


@pytest.mark.parametrize(
    ("made", "on", "expected"),
    [
        (sample(), machine(), 8),
        (sample(parallelism=3), machine(), 3),
        (sample(), machine(cores=2), 2),
        (sample(), machine(memory=9 * GIB), 2),
        (sample(requests={"memory": "1Gi"}), machine(memory=9 * GIB), 8),
        (sample(requests={"cpu": "4"}), machine(), 4),
        (sample(limits={"cpu": "500m"}), machine(cores=2), 2),
        (sample(requests={"cpu": 64, "memory": "1Ti"}), machine(), 1),
        (action(StageName.TRAIN, train={"compute": {"nodes": 3}}), machine(cores=1), 3),
    ],
)
def test_shards_at_a_time_are_what_cores_and_memory_allow(made: CreateJob, on: Machine, expected: int) -> None:
    assert at_a_time(made, on) == expected


def test_threads_are_cores_by_rank() -> None:
    two_ranks = action(StageName.TRAIN, train={"compute": {"processesPerNode": 2}})
    assert threads(two_ranks, machine(cores=8), together=1) == 4
    assert threads(two_ranks, machine(cores=1), together=1) == 1
    assert threads(sample(), machine(cores=8), together=4) == 2


def test_gpus_are_counted_where_there_are_any_and_they_are_wanted() -> None:
    limits = {"pod": {"resources": {"limits": {"nvidia.com/gpu": 2}}}}
    assert gpus(action(StageName.SAMPLE, sample=limits), machine(count=4)) == 2
    assert gpus(action(StageName.SAMPLE, sample=limits), machine()) == 0
    assert gpus(action(StageName.SAMPLE, sample=limits, allow_cpu=True), machine(count=4)) == 0


def test_this_machine_has_cores_and_memory() -> None:
    found = this_machine()
    assert found.cores >= 1
    assert found.memory() > 0
    assert found.oom_kills() is not None


def test_the_nodes_of_a_gang_get_the_same_rendezvous(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path)
    world.plan("train-1-0", "environment")
    world.plan("train-1-1", "environment")
    env = [{"name": "MY_OWN", "value": "1"}]
    world.run(world.manifest(train={"compute": {"nodes": 2, "processesPerNode": 2, "pod": {"env": env}}}))
    first, second = (json.loads((tmp_path / "fake" / f"environment-{index}").read_text()) for index in (0, 1))
    assert (first["PET_NNODES"], first["PET_NPROC_PER_NODE"], first["OMP_NUM_THREADS"]) == ("2", "2", "1")
    assert (first["PET_NODE_RANK"], second["PET_NODE_RANK"]) == ("0", "1")
    assert first["PET_MASTER_PORT"] == second["PET_MASTER_PORT"]
    assert (first["MY_OWN"], first["JOB_COMPLETION_INDEX"], second["JOB_COMPLETION_INDEX"]) == ("1", "0", "1")
