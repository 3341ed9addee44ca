"""What a stage answers: its StageResult, and what a manifest records of its work."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_api.metrics import MetricValue
from rlhf_api.stage import ArtifactRef, ModelInput, PolicyInput, StageConfig, StageResult
from rlhf_api.words import ArtifactKind
from rlhf_store import Checkpoints, ExternalModel, Sealed, Store

from .errors import ApplicationProblem
from .logs import log

RESULT_LIMIT = 4096


def result_of(config: StageConfig, sealed: Sealed, *, found: bool = False, warnings: list[str] | None = None) -> StageResult:
    """The StageResult that a manifest stands for; the same whether it was sealed now or long ago."""
    manifest = sealed.manifest
    return StageResult(
        stage=manifest.stage,
        attempt=config.execution.attempt,
        artifact=sealed.ref,
        folder=_model_folder(sealed),
        found=found or not sealed.created,
        metrics=manifest.metrics,
        counts=manifest.counts,
        warnings=warnings or [],
    )


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

    def short(number: float | None) -> float | None:
        return None if number is None else float(f"{number:.6g}")

    return MetricValue(value=float(f"{value:.6g}"), lower=short(lower), upper=short(upper))


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
