"""What every stage is given, and how it ends: configuration in, one result out, an exit code that says whose fault it was."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlhf_api.metrics import MetricValue
from rlhf_api.stage import ArtifactRef, ModelInput, PolicyInput, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, ArtifactKind
from rlhf_store import Artifact, Checkpoints, ExternalModel, Sealed, Store, StoreError, find_artifact, open_artifact

from .errors import ApplicationProblem, ConfigurationProblem, StageError, Transient
from .logs import log
from .narrow import present
from .progress import Progress

RESULT_LIMIT = 4096
#: In a bf16 policy's artifact: the fp32 weights behind it, for the next iteration's warm start.
MASTER_FILE = "master/model.safetensors"
_W = TypeVar("_W")


@dataclass(frozen=True)
class StageContext:
    """One stage process: its configuration, its store, its place to work."""

    config: StageConfig
    store: Store
    scratch: Path
    shard: int = 0
    progress: Progress = field(default_factory=lambda: Progress(None))

    def artifact(self, ref: ArtifactRef) -> Artifact:
        """Raises StoreError: a stage whose input is gone or damaged cannot go on."""
        return open_artifact(self.store, ref)

    def model_folder(self, model: ModelInput) -> Path:
        """A folder with the model's files, verified where it is an artifact, from its hub or store otherwise.

        fp32 masters stay where they are: they are twice as large as all the rest, and one stage may want them.
        """
        from rlhf_trainer.data import sources

        if model.artifact is not None:
            return self.artifact(model.artifact).cached(self.scratch / "inputs", without=MASTER_FILE)
        return sources.model_folder(present(model.source, "the model's source"), self.scratch / "inputs", self.config.storage)

    def trusts(self, model: ModelInput) -> bool:
        return model.source is not None and model.source.trust_remote_code

    def found(self) -> StageResult | None:
        """The result of this very work, where its artifact is sealed already: nothing is computed twice."""
        sealed = find_artifact(self.store, STAGE_ARTIFACT[self.config.stage], self.config.fingerprint)
        if sealed is None:
            return None
        remove_checkpoints(self.store, sealed.ref)
        return result_of(self.config, sealed, found=True)


def work_of(context: StageContext, kind: type[_W]) -> _W:
    """The work that this stage was started with. Raises TypeError for that of another stage."""
    work = context.config.work
    if not isinstance(work, kind):
        raise TypeError(f"the configuration holds {type(work).__name__}, and this stage does {kind.__name__}")
    return work


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


def from_store_error(error: StoreError) -> StageError:
    """What a store's refusal means for the stage."""
    if error.transient:
        return Transient(str(error))
    if error.configuration:
        return ConfigurationProblem(str(error))
    return ApplicationProblem(str(error), reason=type(error).__name__)


#: The last two are torch.save's: its zip file breaks off at a write that failed.
_DISK_FULL = ("No space left on device", "os error 28", "os error 122", "PytorchStreamWriter failed writing", "] . unexpected pos ")


def from_os_error(error: OSError) -> StageError:
    """A full disk says so, and which one; the rest is told as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or os.environ.get("RLHF_SCRATCH", "the scratch folder")
        return ApplicationProblem(
            f"No space left on the disk of {where}. Free some, or give the stage a larger scratch volume.", reason="DiskFull"
        )
    return ApplicationProblem(f"{type(error).__name__}: {error}")


def from_exception(error: Exception) -> StageError:
    """Everything else that a stage may run into, in words; the trace is for the log."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, StoreError):
        return from_store_error(error)
    text = (str(error).strip().splitlines() or ["no message"])[0]
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ApplicationProblem(
            f"Out of memory: {text} Give the stage more; for training, lower train.tokenBudget or raise deepspeed.zeroStage, "
            "which helps once the model is loaded: each GPU holds all of it until then.",
            reason="OOMKilled",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return from_os_error(error)
    # pyarrow, safetensors and torch tell of a full disk in words of their own.
    if any(word in str(error) for word in _DISK_FULL):
        return from_os_error(OSError(errno.ENOSPC, text))
    return ApplicationProblem(f"{type(error).__name__}: {text}. The log has the trace.")


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
