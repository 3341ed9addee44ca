"""train: iteration t's preference optimisation, from pi_{t-1} (or where spec.train.start says) to pi_t."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.training import WarmStart
from rlhf_api.stage import StageResult, TrainSet, TrainWork
from rlhf_store import removed_files
from rlhf_trainer.data.examples import Example, write_examples
from rlhf_trainer.data.preferences import Limits, Pairs, read_reference_logps
from rlhf_trainer.models.folder import MASTER_FILE, model_folder
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem
from rlhf_trainer.runtime.narrow import present
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import Guard, ObjectiveName
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal

#: Largest difference between cached and recomputed reference log-probs, nats a token. Measured (benchmarks/reference_tolerance.py,
#: CPU, torch 2.13): the same reference in other rows and batches differs by 1e-7 in fp32 and 5e-4 in bf16; a template without BOS
#: by 0.16, a model 20 steps later by 0.18. bf16's figure lies a factor of 15 from either.
GUARD_TOLERANCE = {Dtype.FLOAT32: 1e-4, Dtype.BFLOAT16: 1e-2}


def run(context: StageContext) -> StageResult:
    work = work_of(context, TrainWork)
    counts: dict[str, int] = {}
    examples = _examples(context, work, counts)
    job, vocabulary = new_job(context, ObjectiveName.PREFERENCE, work.start, work.optimization, work.deepspeed)
    job = job.model_copy(
        update={
            "loss": work.loss,
            "guard": _guard(context, work),
            "master_weights": _master_weights(context, Path(job.model_folder), work),
        }
    )
    inputs = [
        *model_inputs(work.start),
        *(ref for part in work.data for ref in (part.labels, part.reference_logps) if ref is not None),
    ]
    rows = counts["pairsTrained"] = write_examples(Path(job.examples), examples)
    return train_and_seal(context, job, rows, vocabulary, Lineage(inputs, iterate=context.config.iteration), counts)


def _examples(context: StageContext, work: TrainWork, counts: dict[str, int]) -> Iterator[Example]:
    """All pairs of all data sets that iteration t replays, each with its cached reference log-probs; what was read, cut and dropped
    is added to `counts`."""
    limits = Limits(work.max_length, work.max_prompt_length, work.overlong)
    for part in work.data:
        pairs = Pairs(context.artifact(part.labels).cached(context.scratch / "inputs"), limits)
        for name, count in pairs.counts.items():
            counts[name] = counts.get(name, 0) + count
        if not work.loss.type.needs_reference:
            yield from (pair.example for pair in pairs)
            continue
        cached = _cached_logps(context, part)
        if missing := [key for key in pairs.keys if key not in cached]:
            raise ApplicationProblem(
                f"The reference log-probs of iteration {part.iteration} lack {len(missing)} of {len(pairs)} pairs "
                f"(first: {missing[0]}): they were made from other labels. Delete that reference-logps artifact and run again.",
                reason="ReferenceIncomplete",
            )
        yield from (replace(pair.example, reference=cached[pair.key]) for pair in pairs)


def _cached_logps(context: StageContext, part: TrainSet) -> dict[tuple[str, int, int], tuple[float, float]]:
    ref = present(part.reference_logps, f"the reference log-probs of D_{part.iteration}")
    return dict(read_reference_logps(context.artifact(ref).cached(context.scratch / "inputs"), part.iteration))


def _guard(context: StageContext, work: TrainWork) -> Guard | None:
    if not work.loss.type.needs_reference or work.reference is None:
        return None
    return Guard(reference_folder=str(model_folder(context, work.reference.model)), tolerance=GUARD_TOLERANCE[work.start.dtype])


def _master_weights(context: StageContext, folder: Path, work: TrainWork) -> str | None:
    """None: not wanted, or there never were any (fp32; a model from outside). Raises ConfigurationProblem for removed ones."""
    if work.warm_start is not WarmStart.MASTER:
        return None
    ref = work.start.model.artifact
    if ref is None or (artifact := context.artifact(ref)).manifest.file(MASTER_FILE) is None:
        return None
    if MASTER_FILE in removed_files(artifact):
        raise ConfigurationProblem(
            f"The iterate that this training starts from ({ref.kind}/{ref.fingerprint[:12]}) has lost its fp32 master weights to "
            "storage.retention (checkpoints: Delete). Set train.warmStart: Exported, or have it trained again: remove its folder."
        )
    return str(artifact.fetch(folder, [MASTER_FILE]) / MASTER_FILE)
