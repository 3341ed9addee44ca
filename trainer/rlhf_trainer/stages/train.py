"""train: iteration t's preference optimisation, from pi_{t-1} (or where spec.train.start says) to pi_t."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.training import WarmStart
from rlhf_api.stage import ArtifactRef, StageResult, TrainWork
from rlhf_store import removed_files
from rlhf_trainer.data.examples import Example, Examples, write_examples
from rlhf_trainer.data.preferences import OFFLINE, Limits, OfflinePairs, Pairs, offline_counts, read_reference_logps
from rlhf_trainer.models.folder import MASTER_FILE, model_folder
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem
from rlhf_trainer.runtime.narrow import present
from rlhf_trainer.runtime.result import model_inputs
from rlhf_trainer.training.job import Guard, ObjectiveName
from rlhf_trainer.training.prepared.artifact import Prepared, prepared_offline
from rlhf_trainer.training.stage import Lineage, new_job, train_and_seal

#: Largest difference between cached and recomputed reference log-probs, nats a token. Measured (benchmarks/reference_tolerance.py,
#: CPU, torch 2.13): the same reference in other rows and batches differs by 1e-7 in fp32 and 5e-4 in bf16; a template without BOS
#: by 0.16, a model 20 steps later by 0.18. bf16's figure lies a factor of 15 from either.
GUARD_TOLERANCE = {Dtype.FLOAT32: 1e-4, Dtype.BFLOAT16: 1e-2}


def run(context: StageContext) -> StageResult:
    work = work_of(context, TrainWork)
    limits = Limits.of(work)
    offline = None if work.offline is None else prepared_offline(context, work.offline, limits)
    counts = {} if offline is None else offline_counts(offline.counts)
    examples = _examples(context, work, offline, limits, counts)
    job, vocabulary = new_job(context, ObjectiveName.PREFERENCE, work.start, work)
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
        *([work.offline_logps] if work.offline_logps is not None else []),
    ]
    rows = counts["pairsTrained"] = write_examples(Path(job.examples), examples)
    lineage = Lineage(inputs, iterate=context.config.iteration, tokens=None if offline is None else offline.ref)
    return train_and_seal(context, job, rows, vocabulary, lineage, counts)


def _examples(
    context: StageContext, work: TrainWork, offline: Prepared | None, limits: Limits, counts: dict[str, int]
) -> Iterator[Example]:
    """All pairs of D_off and of all data sets that iteration t replays, each with its cached reference log-probs; what was read,
    cut and dropped of the latter is added to `counts`."""
    with_reference = work.loss.type.needs_reference
    if offline is not None:
        own = OfflinePairs(Examples(offline.file))
        yield from _with_logps(context, own, OFFLINE, work.offline_logps) if with_reference else (pair.example for pair in own)
    for part in work.data:
        pairs = Pairs(context.artifact(part.labels).cached(context.scratch / "inputs"), limits)
        for name, count in pairs.counts.items():
            counts[name] = counts.get(name, 0) + count
        if with_reference:
            yield from _with_logps(context, pairs, part.iteration, part.reference_logps)
        else:
            yield from (pair.example for pair in pairs)


def _with_logps(context: StageContext, pairs: Pairs | OfflinePairs, number: int, ref: ArtifactRef | None) -> Iterator[Example]:
    """With what the reference stage computed of data set `number`."""
    found = context.artifact(present(ref, f"the reference log-probs of D_{number}")).cached(context.scratch / "inputs")
    cached = read_reference_logps(found, number)
    if missing := [key for key in pairs.keys if key not in cached]:
        of = "train.data.offline" if number == OFFLINE else f"iteration {number}"
        raise ApplicationProblem(
            f"The reference log-probs of {of} lack {len(missing)} of {len(pairs)} pairs (first: {missing[0]}): they were made from "
            "other ones. Delete that reference-logps artifact and run again.",
            reason="ReferenceIncomplete",
        )
    return (replace(pair.example, reference=cached[pair.key]) for pair in pairs)


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
