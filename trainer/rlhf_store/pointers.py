"""runs/<namespace>/<run>/<uid>/…: small files for a person who browses the bucket. Nothing reads them to decide."""

from __future__ import annotations

from rlhf_api.base import Model
from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.stage import RunRef, StageResult
from rlhf_api.words import StageName

from .artifact import artifact_url
from .store import Store


class Pointer(Model):
    """What a stage of a run led to."""

    run: RunRef
    iteration: int | None = None
    stage: StageName
    url: str | None = None
    """Of its artifact."""
    result: StageResult


def write_pointer(store: Store, run: RunRef, iteration: int | None, stage: StageName, result: StageResult) -> None:
    """`iteration` None: a stage of the run. Replaces the pointer of a former attempt."""
    artifact = result.artifact
    url = artifact_url(store, artifact.kind, artifact.fingerprint) if artifact else None
    pointer = Pointer(run=run, iteration=iteration, stage=stage, url=url, result=result)
    store.put(pointer_key(run, iteration, stage), canonical_json(pointer.to_wire()))


def pointer_key(run: RunRef, iteration: int | None, stage: StageName) -> str:
    return f"{_folder(run, iteration)}/{stage}.json"


def metrics_key(run: RunRef, iteration: int | None, stage: StageName) -> str:
    """Of a training at work: its metrics.jsonl so far, in lines that are whole. Iteration 0 is the run, as in the names of logs."""
    return f"{run_folder(run)}/metrics/{stage}-{iteration or 0}.jsonl"


def run_folder(run: RunRef) -> str:
    return f"runs/{run.namespace}/{run.name}/{run.uid}"


def _folder(run: RunRef, iteration: int | None) -> str:
    return f"{run_folder(run)}/" + ("run" if iteration is None else f"iteration-{iteration}")
