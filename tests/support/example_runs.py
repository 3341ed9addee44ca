"""Whole RLHFRuns by hand, as the local backend leaves them: one that has ended, one at work, one that failed, one that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import GateAction
from rlhf_api.resource.status import (
    ArtifactStatus,
    CheckpointStatus,
    GateStatus,
    GateVerdict,
    IterationStatus,
    RLHFRunStatus,
    StageStatus,
    Totals,
)
from rlhf_api.words import STAGE_ARTIFACT, Phase, Reason, StageName

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECONDS = {
    "preflight": 3,
    "sft": 75,
    "reward": 50,
    "judge": 50,
    "sample": 31,
    "label": 4,
    "reference": 8,
    "train": 65,
    "evaluate": 42,
    "finalize": 2,
}
WIN_RATES = {1: (0.612, 0.571, 0.655), 2: (0.694, 0.652, 0.737), 3: (0.731, 0.690, 0.771)}
CHAIN = (StageName.SAMPLE, StageName.LABEL, StageName.REFERENCE, StageName.TRAIN, StageName.EVALUATE)


def spec(store: str, **changes: object) -> dict[str, object]:
    """A small, valid spec on the wire form."""
    rule = {"type": "Rule", "rule": {"entryPoint": "support.scores:grade"}}
    return {
        "iterations": 3,
        "storage": {"url": store},
        "policy": {"model": {"uri": "file:///models/tiny"}, "dtype": "float32"},
        "reward": {"type": "BradleyTerry", "bradleyTerry": {"model": {"uri": "file:///models/reward"}}},
        "prompts": {"source": {"uri": "file:///data/prompts.jsonl"}, "perIteration": 64, "validation": {"size": 32}},
        "evaluate": {"judge": rule},
        **changes,
    }


def run(name: str, store: str, status: RLHFRunStatus | None = None, **changes: object) -> RLHFRun:
    wire = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": name}, "spec": spec(store, **changes)}
    found = RLHFRun.model_validate(wire)
    return found.model_copy(update={"status": status})


def finished(name: str, store: str) -> RLHFRun:
    """Three iterations, the third is best; iteration 1 was sampled twice."""
    clock = _Clock()
    before = [clock.stage(stage, store, None) for stage in (StageName.PREFLIGHT, StageName.SFT, StageName.REWARD)]
    before.append(clock.stage(StageName.EVALUATE, store, 0))
    iterations = [_iteration(clock, store, number) for number in (1, 2, 3)]
    last = clock.stage(StageName.FINALIZE, store, None)
    policy = iterations[-1].stages[3].artifact
    assert policy is not None
    status = RLHFRunStatus(
        phase=Phase.SUCCEEDED,
        start_time=START,
        completion_time=clock.now,
        iteration=3,
        message="finished: π3 is the best iterate",
        stages=[*before, last],
        iterations=iterations,
        best_iteration=3,
        checkpoint=CheckpointStatus(url=policy.url, digest=policy.digest),
        totals=Totals(work_seconds=(clock.now - START).total_seconds()),
    )
    return run(name, store, status)


def at_work(name: str, store: str) -> RLHFRun:
    """In iteration 2, training, second attempt."""
    whole = finished(name, store)
    assert whole.status is not None
    second = whole.status.iterations[1]
    train = second.stages[3].model_copy(
        update={
            "phase": Phase.RUNNING,
            "completion_time": None,
            "artifact": None,
            "metrics": {},
            "attempt": 2,
            "infrastructure_retries": 1,
        }
    )
    part = second.model_copy(update={"stages": [*second.stages[:3], train], "metrics": {}, "gates": []})
    status = whole.status.model_copy(
        update={
            "phase": Phase.RUNNING,
            "completion_time": None,
            "iteration": 2,
            "stage": StageName.TRAIN,
            "message": "",
            "stages": whole.status.stages[:-1],
            "iterations": [whole.status.iterations[0], part],
            "best_iteration": 1,
            "checkpoint": None,
        }
    )
    return whole.model_copy(update={"status": status})


def failed(name: str, store: str) -> RLHFRun:
    """SFT failed for good."""
    clock = _Clock()
    preflight = clock.stage(StageName.PREFLIGHT, store, None)
    message = "sft failed 3 times: DiskFull: no space left on the device that holds the scratch folder"
    sft = clock.stage(StageName.SFT, store, None).model_copy(
        update={"phase": Phase.FAILED, "artifact": None, "metrics": {}, "attempt": 3, "application_retries": 2, "message": message}
    )
    status = RLHFRunStatus(
        phase=Phase.FAILED,
        start_time=START,
        completion_time=clock.now,
        stage=StageName.SFT,
        message=message,
        stages=[preflight, sft.model_copy(update={"reason": Reason.RETRY_BUDGET_EXHAUSTED})],
    )
    return run(name, store, status)


def paused(name: str, store: str) -> RLHFRun:
    """Gate `length` paused it after iteration 1."""
    whole = finished(name, store)
    assert whole.status is not None
    gate = GateStatus(
        name="length", verdict=GateVerdict.TRIPPED, action=GateAction.PAUSE, message="meanLengthRatioVsInitial 2.41 is above 2.0"
    )
    first = whole.status.iterations[0].model_copy(update={"gates": [gate]})
    status = whole.status.model_copy(
        update={
            "phase": Phase.PAUSED,
            "completion_time": None,
            "iteration": 1,
            "message": "gate length paused the run after iteration 1; rlhfctl approve lets it go on",
            "stages": whole.status.stages[:-1],
            "iterations": [first],
            "best_iteration": 1,
            "checkpoint": None,
        }
    )
    gates = [{"name": "length", "metric": "meanLengthRatioVsInitial", "max": 2.0, "action": "Pause"}]
    return run(name, store, status, gates=gates)


def digest(*parts: object) -> str:
    return sha256("/".join(map(str, parts)).encode()).hexdigest()


def save(state: Path, item: RLHFRun) -> None:
    """Write run.yaml and status.json as the local backend lays them out."""
    import yaml

    folder = state / "runs" / item.metadata.name
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    wire = item.to_wire()
    status = wire.pop("status", None)
    (folder / "run.yaml").write_text(yaml.safe_dump(wire, sort_keys=False))
    if item.status is not None:
        (folder / "status.json").write_text(item.status.model_dump_json(by_alias=True, exclude_none=True, indent=1))
    assert status is None or isinstance(status, dict)


class _Clock:
    """Gives each stage its time after the one before."""

    def __init__(self) -> None:
        self.now = START

    def stage(self, name: StageName, store: str, iterate: int | None, attempt: int = 1) -> StageStatus:
        begin = self.now
        self.now = begin + timedelta(seconds=SECONDS[name])
        kind = STAGE_ARTIFACT.get(name)
        artifact = None
        if kind is not None:
            fingerprint = digest(name, iterate)
            artifact = ArtifactStatus(
                url=f"{store}/{kind.value}/{fingerprint}", digest=digest("manifest", name, iterate), fingerprint=fingerprint
            )
        return StageStatus(
            name=name,
            phase=Phase.SUCCEEDED,
            attempt=attempt,
            infrastructure_retries=attempt - 1,
            start_time=begin,
            completion_time=self.now,
            artifact=artifact,
            metrics=stage_metrics(name, iterate),
        )


def stage_metrics(name: StageName, iterate: int | None) -> dict[Metric, MetricValue]:
    if iterate is None:
        return {}
    if name == StageName.LABEL:
        return {Metric.YIELD: MetricValue(value=0.9), Metric.PAIRS: MetricValue(value=58)}
    if name == StageName.TRAIN:
        return {
            Metric.TRAIN_LOSS: MetricValue(value=0.58 - 0.05 * iterate),
            Metric.REWARD_ACCURACY: MetricValue(value=0.7 + 0.02 * iterate),
        }
    if name != StageName.EVALUATE:
        return {}
    win = WIN_RATES.get(iterate, (0.5, 0.5, 0.5))
    judge = 0.72 + 0.05 * iterate
    return {
        Metric.WIN_RATE_VS_INITIAL: MetricValue(value=win[0], lower=win[1], upper=win[2]),
        Metric.JUDGE_MEAN: MetricValue(value=judge, lower=judge - 0.02, upper=judge + 0.02),
        Metric.REWARD_MEAN: MetricValue(value=-0.3 + 0.9 * iterate, lower=-0.4 + 0.9 * iterate, upper=-0.2 + 0.9 * iterate),
        Metric.KL_TO_INITIAL: MetricValue(value=2.4 * iterate, lower=2.1 * iterate, upper=2.7 * iterate),
        Metric.MEAN_LENGTH: MetricValue(value=5.4 - 0.1 * iterate),
    }


def _iteration(clock: _Clock, store: str, number: int) -> IterationStatus:
    stages = [clock.stage(name, store, number, attempt=2 if (name, number) == (StageName.SAMPLE, 1) else 1) for name in CHAIN]
    return IterationStatus(number=number, stages=stages, metrics=stages[-1].metrics)
