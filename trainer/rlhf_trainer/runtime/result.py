"""What a stage answers: its StageResult, and what a manifest records of its work."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlhf_api.metrics import BenchmarkMetric, BenchmarkValue, MetricValue
from rlhf_api.stage import ArtifactRef, ModelInput, PolicyInput, StageConfig, StageResult
from rlhf_api.words import ArtifactKind
from rlhf_store import Artifact, Checkpoints, ExternalModel, Sealed, Store

from .errors import ApplicationProblem, ConfigurationProblem
from .logs import log

RESULT_LIMIT = 4096
#: Standard errors on each side of a 95 % interval.
_TO_EACH_SIDE = 1.96
#: So many names are listed in a message.
_SHOWN = 12


def result_of(
    store: Store, config: StageConfig, sealed: Sealed, *, found: bool = False, warnings: list[str] | None = None
) -> StageResult:
    """The StageResult that an artifact stands for; the same whether it was sealed now or long ago.

    Raises ConfigurationProblem where `config.execution.benchmarks` asks for what a benchmark has not measured.
    """
    manifest = sealed.manifest
    return StageResult(
        stage=manifest.stage,
        attempt=config.execution.attempt,
        artifact=sealed.ref,
        folder=_model_folder(sealed),
        found=found or not sealed.created,
        metrics=manifest.metrics,
        benchmarks=_benchmarks(store, config, sealed),
        counts=manifest.counts,
        warnings=warnings or [],
    )


def _benchmarks(store: Store, config: StageConfig, sealed: Sealed) -> list[BenchmarkValue]:
    wanted = config.execution.benchmarks
    if not wanted or sealed.ref.kind is not ArtifactKind.BENCHMARK:
        return []
    return figures_of(Artifact(store, sealed.ref, sealed.manifest).read("benchmark.json"), wanted)


def _model_folder(sealed: Sealed) -> str | None:
    """Where under the artifact its config.json lies: files are stored under the digest of their upload."""
    entry = sealed.manifest.file("config.json")
    return None if entry is None else entry.key.rpartition("/")[0]


def remove_checkpoints(store: Store, sealed: ArtifactRef) -> None:
    """Of the training that made it, if one did: whatever attempt comes, of whatever run, finds the artifact and reads none."""
    if sealed.kind in (ArtifactKind.POLICY, ArtifactKind.REWARD_MODEL):
        Checkpoints(store, sealed.fingerprint).remove_all()


def canonical_work(config: StageConfig) -> dict[str, Any]:
    """For the manifest: the work with its defaults left out, on the wire form."""
    work = config.work.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {"stage": str(config.stage), "seed": config.seed, **work}


def model_inputs(*models: ModelInput | PolicyInput | None) -> list[ArtifactRef | ExternalModel]:
    """The manifest's record of the models that a stage read."""
    inputs: list[ArtifactRef | ExternalModel] = []
    for model in models:
        source = model.model if isinstance(model, PolicyInput) else model
        if source is None:
            continue
        if source.artifact is not None:
            inputs.append(source.artifact)
        elif source.source is not None:
            inputs.append(ExternalModel(uri=source.source.uri, revision=source.source.revision))
    return inputs


def libraries(*names: str) -> dict[str, str]:
    """Versions of the distributions `names` that are installed, and our own."""
    found = {}
    for name in ("rlhf-operator", *names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_result(result: StageResult, path: Path) -> None:
    """At most 4,096 bytes of valid JSON: warnings go first, then counts, then the end of the problem; never a metric."""
    data = _encode(result)
    for trimmed in _trimmed(result):
        if len(data) <= RESULT_LIMIT:
            break
        data = _encode(trimmed)
    if len(data) > RESULT_LIMIT:
        raise ApplicationProblem(
            f"The result of {result.stage} has {len(data)} bytes, and {RESULT_LIMIT} are read. Nothing in it may be left out; "
            "name fewer data sources, or fewer iterations with a source of their own.",
            reason="ResultTooLarge",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def metric(value: float, lower: float | None = None, upper: float | None = None) -> MetricValue:
    """Rounded to what its definition can mean: six significant digits."""
    return MetricValue(
        value=six_digits(value),
        lower=None if lower is None else six_digits(lower),
        upper=None if upper is None else six_digits(upper),
    )


def six_digits(number: float) -> float:
    return float(f"{number:.6g}")


def log_counts(what: str, counts: Mapping[str, int]) -> None:
    log.info("%s: %s", what, ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing")


def _encode(result: StageResult) -> bytes:
    return json.dumps(
        result.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True) | {"stage": result.stage}
    ).encode()


def _trimmed(result: StageResult) -> Iterator[StageResult]:
    result = result.model_copy(update={"warnings": []})
    yield result
    result = result.model_copy(update={"counts": {}})
    yield result
    problem = result.problem or ""
    while problem:
        # A character can take six bytes.
        problem = problem[: len(problem) * 3 // 4]
        yield result.model_copy(update={"problem": f"{problem} … (the log has the rest)"})


def figures_of(content: bytes, wanted: Sequence[BenchmarkMetric]) -> list[BenchmarkValue]:
    """Of a benchmark.json; the interval is 1.96 standard errors to both sides, where lm-eval gives one. Six significant digits.

    Raises ConfigurationProblem where something that is wanted was not measured.
    """
    measured = {task["name"]: task["metrics"] for task in json.loads(content)["tasks"]}
    require_known(wanted, {name: tuple(metrics) for name, metrics in measured.items()})
    return [_value(one, measured[one.task][one.metric]) for one in wanted]


def _value(wanted: BenchmarkMetric, found: Mapping[str, Any]) -> BenchmarkValue:
    value, stderr = found["value"], found.get("stderr")
    return BenchmarkValue(
        task=wanted.task,
        metric=wanted.metric,
        value=six_digits(value),
        lower=None if stderr is None else six_digits(value - _TO_EACH_SIDE * stderr),
        upper=None if stderr is None else six_digits(value + _TO_EACH_SIDE * stderr),
        less_is_better=found.get("higherIsBetter") is False,
    )


def require_known(wanted: Sequence[BenchmarkMetric], known: Mapping[str, Sequence[str]]) -> None:
    """`known`: metrics by task. Raises ConfigurationProblem with everything that is not among them, and what is near it."""
    unknown = [f"{_unknown(one, known)}" for one in wanted if one.metric not in known.get(one.task, ())]
    if unknown:
        raise ConfigurationProblem(" ".join(unknown))


def _unknown(wanted: BenchmarkMetric, known: Mapping[str, Sequence[str]]) -> str:
    own = known.get(wanted.task)
    if own is None:
        near = get_close_matches(wanted.task, known, n=1)
        guess = f"did you mean {near[0]}?" if near else f"name {_some(list(known))}, or add it there."
        return f"A gate reads the benchmark {wanted.task}, which evaluate.lmEval.tasks does not have; {guess}"
    if not own:
        return f"A gate reads {wanted}, and this group combines nothing of its members. Name one of them in a list of its own."
    near = get_close_matches(wanted.metric, own, n=1)
    guess = f"did you mean {near[0]}?" if near else f"write {_some(own)}."
    return f"A gate reads {wanted}, and that task measures no {wanted.metric}; {guess}"


def _some(names: Sequence[str]) -> str:
    listed = list(names[:_SHOWN])
    return " or ".join(listed) if len(names) <= 2 else f"one of {', '.join(listed)}{', …' if len(names) > _SHOWN else ''}"
