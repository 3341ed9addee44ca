"""Small valid runs for the core and the backends, and results as a stage would give them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from rlhf_api.metrics import BenchmarkValue, Metric, MetricValue
from rlhf_api.resource.run import RLHFRun, RLHFRunSpec
from rlhf_api.stage import ArtifactRef, RunRef, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_operator.core.chain.history import History
from rlhf_operator.core.plan.planner import Planner, Step

RUN = RunRef(namespace="default", name="tiny", uid="0f0e")


#: A judge, and tasks whose benchmarks are beside the chain.
BENCHMARKED = {"judge": {"type": "Rule", "rule": {"entryPoint": "rules:judge"}}, "lmEval": {"tasks": ["arc_easy"]}}

#: Gates that read them, with which they are in the chain: pi_0's only for the second.
BENCHMARK = {"task": "arc_easy", "metric": "acc"}
AT_LEAST = {"name": "arc", "benchmark": BENCHMARK, "min": 0.3, "action": "Rollback"}
AT_MOST_LOST = {"name": "arc-lost", "benchmark": BENCHMARK, "maxDrop": 0.05, "action": "Rollback"}

#: People are the labeler.
ASKED = {"reward": {"type": "Human", "human": {}}}


def spec_of(**changes: Any) -> RLHFRunSpec:
    """A spec of two iterations with everything at its default; `changes` are fields of the wire form, merged over it."""
    fields: dict[str, Any] = {
        "iterations": 2,
        "storage": {"url": "s3://bucket/tiny"},
        "policy": {"model": {"uri": "hf://example/base"}},
        "reward": {"type": "Rule", "rule": {"entryPoint": "rules:score"}},
        "prompts": {"source": {"uri": "hf://example/prompts"}},
        "evaluate": {"judge": {"type": "Rule", "rule": {"entryPoint": "rules:judge"}}},
    }
    fields.update(changes)
    return RLHFRunSpec.model_validate(fields)


def run_of(spec: RLHFRunSpec | None = None, **metadata: Any) -> RLHFRun:
    return RLHFRun.model_validate(
        {"metadata": {"name": RUN.name, "uid": RUN.uid, "generation": 1, **metadata}, "spec": (spec or spec_of()).to_wire()}
    )


def artifact_of(config: StageConfig) -> ArtifactRef | None:
    """The artifact that every execution of this work seals: its digest is a function of its fingerprint."""
    kind = STAGE_ARTIFACT.get(config.stage)
    if kind is None:
        return None
    return ArtifactRef(kind=kind, fingerprint=config.fingerprint, digest=digest_of(config.fingerprint))


def digest_of(fingerprint: str) -> str:
    return hashlib.sha256(f"digest of {fingerprint}".encode()).hexdigest()


def result_of(config: StageConfig, metrics: Mapping[Metric, float] | None = None) -> StageResult:
    values = {metric: MetricValue(value=value) for metric, value in (metrics or {}).items()}
    return StageResult(
        stage=config.stage,
        attempt=config.execution.attempt,
        artifact=artifact_of(config),
        metrics=values,
        benchmarks=falling(config),
    )


def falling(config: StageConfig) -> list[BenchmarkValue]:
    """What gates read of benchmarks, of a run that forgets: 0.6 of pi_0, and a tenth less of each iterate after it."""
    value = 0.6 - 0.1 * (config.iteration or 0)
    interval = {"lower": value - 0.02, "upper": value + 0.02}
    return [
        BenchmarkValue(task=wanted.task, metric=wanted.metric, value=value, **interval)
        for wanted in config.execution.benchmarks or ()
    ]


#: Metrics of a stage, by iteration (None: of the run) and stage.
MetricsOf = Callable[[int | None, StageName], Mapping[Metric, float]]


def improving(iteration: int | None, stage: StageName) -> Mapping[Metric, float]:
    """A run in which every iterate is better than the one before."""
    if stage is not StageName.EVALUATE:
        return {}
    return {Metric.WIN_RATE_VS_INITIAL: 0.5 + 0.1 * (iteration or 0), Metric.WIN_RATE_VS_PREVIOUS: 0.6}


def walk(planner: Planner, metrics: MetricsOf = improving, steps: int = 1000) -> tuple[list[StageConfig], Step]:
    """The stages that the plan runs when each ends well, what is beside the chain first; and the step at which it stops.

    At most `steps` stages.
    """
    history = History()
    configs: list[StageConfig] = []
    plan = planner.plan(planner.chain(history))
    while plan.configs and len(configs) < steps:
        config = plan.configs[-1]
        configs.append(config)
        result = result_of(config, metrics(config.iteration, config.stage))
        history = history.with_result(config, result, beside=config in plan.beside)
        plan = planner.plan(planner.chain(history))
    return configs, plan.step
