"""Stages that compute nothing, as `python -m rlhf_trainer STAGE --config FILE`: put this folder on PYTHONPATH before ours.

They seal real artifacts in the real store and speak the whole stage contract. FAKE_HOLD=train:FILE lets a stage wait until FILE is
there; FAKE_FAIL=train:64 lets it fail with that exit code; with FAKE_DEAF SIGTERM
does not end it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import yaml

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef, EvaluateWork, StageConfig, StageResult, TrainWork
from rlhf_api.words import STAGE_ARTIFACT, StageExit, StageName
from rlhf_store import ArtifactWriter, find_artifact, open_store


def main() -> int:
    config = StageConfig.model_validate(yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text()))
    signal.signal(signal.SIGTERM, _preempted)
    print(f"{config.stage}: attempt {config.execution.attempt}", flush=True)
    _progress(0)
    name, _, code = os.environ.get("FAKE_FAIL", "").partition(":")
    if name == config.stage:
        _finish(StageResult(stage=config.stage, problem="The fake stage was told to fail.", reason="Told"))
        print("told to fail", flush=True)
        return int(code)
    _hold(config.stage)
    _progress(10)
    _finish(_result(config))
    return StageExit.DONE


def _result(config: StageConfig) -> StageResult:
    store = open_store(config.storage)
    if config.stage is StageName.RESOLVE:
        work = config.work
        found = find_artifact(store, work.kind, config.fingerprint)  # type: ignore[union-attr]
        if found is None:
            return StageResult(stage=config.stage)
        return StageResult(stage=config.stage, artifact=found.ref, found=True, metrics=found.manifest.metrics)
    kind = STAGE_ARTIFACT.get(config.stage)
    if kind is None:
        return StageResult(stage=config.stage, attempt=config.execution.attempt)
    metrics = _metrics(config)
    writer = ArtifactWriter(store, kind, config.fingerprint)
    iterate = config.iteration if isinstance(config.work, TrainWork) else None
    if isinstance(config.work, EvaluateWork):
        writer.add_bytes(
            json.dumps({"iterate": config.work.iterate, "examples": [], "test": None, "counts": {}}).encode(), "report.json"
        )
    else:
        writer.add_bytes(b'{"step": 1, "loss": 0.69}\n', "metrics.jsonl")
    sealed = writer.seal(stage=config.stage, iterate=iterate, metrics=metrics, inputs=_inputs(config))
    return StageResult(
        stage=config.stage, attempt=config.execution.attempt, artifact=sealed.ref, found=not sealed.created, metrics=metrics
    )


def _inputs(config: StageConfig) -> list[ArtifactRef]:
    if isinstance(config.work, TrainWork):
        return [entry.labels for entry in config.work.data]
    return []


def _metrics(config: StageConfig) -> dict[Metric, MetricValue]:
    if isinstance(config.work, TrainWork):
        return {Metric.TRAIN_LOSS: MetricValue(value=0.6)}
    if not isinstance(config.work, EvaluateWork):
        return {}
    win = 0.5 + 0.1 * config.work.iterate
    return {
        Metric.WIN_RATE_VS_INITIAL: MetricValue(value=win, lower=win - 0.04, upper=win + 0.04),
        Metric.JUDGE_MEAN: MetricValue(value=win + 0.2),
        Metric.REWARD_MEAN: MetricValue(value=win),
        Metric.KL_TO_INITIAL: MetricValue(value=3.0 * config.work.iterate),
        Metric.MEAN_LENGTH: MetricValue(value=5.0),
        Metric.MEAN_LENGTH_RATIO_VS_INITIAL: MetricValue(value=1.0 + config.work.iterate),
    }


def _hold(stage: StageName) -> None:
    name, _, file = os.environ.get("FAKE_HOLD", "").partition(":")
    while name == stage and not Path(file).exists():
        time.sleep(0.05)


def _progress(done: int) -> None:
    path = Path(os.environ["RLHF_PROGRESS"])
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"done": done, "total": 10, "unit": "steps", "detail": "loss 0.69"}))
    beside.replace(path)


def _finish(result: StageResult) -> None:
    Path(os.environ["RLHF_RESULT"]).write_text(result.model_dump_json(by_alias=True, exclude_none=True))


def _preempted(_number: int, _frame: FrameType | None) -> None:
    if os.environ.get("FAKE_DEAF"):
        print("deaf to SIGTERM", flush=True)
        return
    print("SIGTERM: a checkpoint is written", flush=True)
    sys.exit(StageExit.PREEMPTED)


if __name__ == "__main__":
    sys.exit(main())
