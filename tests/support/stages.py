"""Stages to test with: a tiny world, configurations of single stages, stages in this process and as processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import Execution, RunRef, StageConfig, StageResult, Work
from rlhf_api.words import StageName
from rlhf_operator.core.chain.history import History
from rlhf_operator.core.plan.fingerprint import fingerprint
from rlhf_operator.core.plan.planner import Plan, Planner
from rlhf_store import open_store
from rlhf_trainer.quickstart.world import Size
from rlhf_trainer.runtime.context import StageContext

from .waiting import wait_until

#: Goes through every stage in seconds.
TINY = Size(
    iterations=1,
    prompts_per_iteration=24,
    validation=12,
    test=8,
    demonstrations=384,
    preferences=128,
    sft_steps=12,
    sample_shards=2,
    layers=1,
)
RUN = RunRef(namespace="default", name="quickstart", uid="u1")


def spec_of_world(world: Path, **changes: Any) -> RLHFRunSpec:
    """The manifest's spec; `changes` are fields of the wire form that replace its own."""
    spec = yaml.safe_load((world / "run.yaml").read_text())["spec"]
    return RLHFRunSpec.model_validate({**spec, **changes})


def config_of(work: Work, storage: Storage, *, iteration: int | None = 1, seed: int = 0, **execution: Any) -> StageConfig:
    return StageConfig(
        run=RUN,
        iteration=iteration,
        seed=seed,
        fingerprint=fingerprint(work, seed),
        storage=storage,
        execution=Execution(**execution),
        work=work,
    )


def context_of(config: StageConfig, scratch: Path, shard: int = 0) -> StageContext:
    """To call a stage's run(context) in this process."""
    scratch.mkdir(parents=True, exist_ok=True)
    return StageContext(config, open_store(config.storage), scratch, shard)


@dataclass(frozen=True)
class Ended:
    """How a stage process ended."""

    code: int
    result: StageResult | None
    log: str


def write_config(config: StageConfig, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "stage.json"
    file.write_text(json.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return file


def environment_of(folder: Path, shard: int = 0) -> dict[str, str]:
    return {
        **os.environ,
        "RLHF_RESULT": str(folder / f"result-{shard}.json"),
        "RLHF_SCRATCH": str(folder / f"scratch-{shard}"),
        "RLHF_PROGRESS": str(folder / f"progress-{shard}.json"),
        "JOB_COMPLETION_INDEX": str(shard),
    }


def start_stage(config: StageConfig, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """`python -m rlhf_trainer STAGE` in a session of its own."""
    file = write_config(config, folder)
    with (folder / "log-0").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rlhf_trainer", config.stage.value, "--config", str(file)],
            env={**environment_of(folder), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def ended(folder: Path, code: int, shard: int = 0) -> Ended:
    file = folder / f"result-{shard}.json"
    result = StageResult.model_validate_json(file.read_bytes()) if file.exists() else None
    return Ended(code, result, (folder / f"log-{shard}").read_text(errors="replace"))


def run_stage(config: StageConfig, folder: Path, **environment: str) -> Ended:
    return ended(folder, start_stage(config, folder, **environment).wait())


@dataclass
class Forked:
    """A stage process of the fork server."""

    folder: Path
    shard: int
    pid: int
    _connection: socket.socket
    _answers: IO[str]

    def wait(self) -> Ended:
        with self._connection, self._answers:
            return ended(self.folder, json.loads(self._answers.readline())["exit"], self.shard)

    @property
    def progress(self) -> int:
        """Of what the stage says that it has done."""
        file = self.folder / f"progress-{self.shard}.json"
        return int(json.loads(file.read_text())["done"]) if file.exists() else 0

    def ranks(self) -> list[int]:
        """The processes of a training stage's ranks: stage, torchrun, ranks."""
        return [rank for agent in children(self.pid) for rank in children(agent)]


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@dataclass
class ForkServer:
    """rlhf_trainer.process.forkserver: stages that need not import what it has imported."""

    folder: Path
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> ForkServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "forkserver.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rlhf_trainer.process.forkserver", str(self._socket)], stdout=log, stderr=log
            )
        wait_until(self._socket.exists, "the fork server's socket", seconds=60)
        return self

    def run(self, config: StageConfig, folder: Path, shard: int = 0) -> Ended:
        return self.launch(config, folder, shard).wait()

    def launch(self, config: StageConfig, folder: Path, shard: int = 0) -> Forked:
        file = write_config(config, folder)
        request = {
            "argv": [config.stage.value, "--config", str(file)],
            "env": environment_of(folder, shard),
            "log": str(folder / f"log-{shard}"),
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._socket))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile("r")
        return Forked(folder, shard, json.loads(answers.readline())["pid"], connection, answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _socket(self) -> Path:
        return self.folder / "stages"


@dataclass
class RealRun:
    """A whole run, every stage of it a real process. stages, results: by (iteration, stage)."""

    folder: Path
    spec: RLHFRunSpec
    stages: dict[tuple[int | None, StageName], StageConfig] = field(default_factory=dict)
    results: dict[tuple[int | None, StageName], StageResult] = field(default_factory=dict)
    history: History = field(default_factory=History)
    resolved: dict[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> Storage:
        return self.spec.storage

    def plan(self) -> Plan:
        planner = Planner(RUN, self.spec, self.resolved)
        return planner.plan(planner.chain(self.history))

    def result(self, stage: StageName, iteration: int | None = 1) -> StageResult:
        return self.results[iteration, stage]

    def config(self, stage: StageName, iteration: int | None = 1) -> StageConfig:
        return self.stages[iteration, stage]


def run_whole_chain(spec: RLHFRunSpec, folder: Path, server: ForkServer) -> RealRun:
    """Every stage that the plan names, what is beside the chain first; fails the test at the first that does not end well."""
    run = RealRun(folder, spec)
    while (plan := run.plan()).configs:
        config = plan.configs[-1]
        place = folder / f"{config.stage}-{config.iteration}"
        for shard in range(config.execution.shards):
            result = _result_of(config, server.run(config, place, shard))
        key = (config.iteration, config.stage)
        run.stages[key], run.results[key] = config, result
        if config.stage is StageName.PREFLIGHT:
            run.resolved = dict(result.resolved)
        run.history = run.history.with_result(config, result, beside=config in plan.beside)
    return run


def _result_of(config: StageConfig, ended: Ended) -> StageResult:
    if ended.code != 0 or ended.result is None:
        raise AssertionError(f"{config.stage} ended with {ended.code}: {ended.result}\n{ended.log[-4000:]}")
    return ended.result
