"""What sft, reward, judge and train share: write the job, run the ranks, seal what they exported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef, PolicyInput, PreferenceModelWork, SftWork, StageConfig, StageResult, TrainWork
from rlhf_api.words import STAGE_ARTIFACT, StageName
from rlhf_store import ArtifactWriter, ExternalModel, ModelLineage, find_artifact, metrics_key, open_store
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.vocabulary import Vocabulary, vocabulary_of
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import canonical_work, libraries, log_counts, metric, remove_checkpoints, result_of
from rlhf_trainer.runtime.seeds import hashed_seed
from rlhf_trainer.tracking.following import followed
from rlhf_trainer.tracking.origin import Origin
from rlhf_trainer.tracking.store_copy import RETRY_SECONDS, StoreCopy

from .job import ObjectiveName, TrainingJob
from .launch import launch_ranks
from .zero import deepspeed_config

#: metrics.jsonl's keys behind the words of api.md.
TRAIN_METRICS: Mapping[Metric, str] = {
    Metric.TRAIN_LOSS: "loss",
    Metric.CHOSEN_REWARD: "rewards/chosen",
    Metric.REJECTED_REWARD: "rewards/rejected",
    Metric.REWARD_MARGIN: "rewards/margins",
    Metric.REWARD_ACCURACY: "rewards/accuracies",
    Metric.GRAD_NORM: "grad_norm",
}


@dataclass(frozen=True)
class Lineage:
    """iterate: t of pi_t, None for a reward model. base: the uri it descends from. tokens: the artifact that it was trained on.

    They are told of in the manifest's config and not among its inputs: versions that do not know the kind read the manifest, too.
    """

    inputs: Sequence[ArtifactRef | ExternalModel]
    iterate: int | None = None
    base: str | None = None
    tokens: ArtifactRef | None = None


@dataclass(frozen=True)
class Measured:
    """What was found of an export: a file of the artifact, and metrics of its manifest."""

    name: str
    content: bytes
    metrics: Mapping[Metric, MetricValue]


def train_and_seal(
    context: StageContext,
    job: TrainingJob,
    rows: int,
    vocabulary: Vocabulary,
    lineage: Lineage,
    counts: dict[str, int],
    measure: Callable[[Path], Measured | None] | None = None,
) -> StageResult:
    """The artifact: the exported folder, README.md (its card) and metrics.jsonl. Node 0 seals; the others say that they did not.

    rows: examples of the job's file. measure: of the exported folder, when the ranks have ended; None: there is nothing to tell.
    """
    if not rows:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise ConfigurationProblem(
            f"There is nothing to train on ({told}). Look at the lengths and at what the data holds.", reason="NoData"
        )
    log_counts("training data", counts)
    job.write()
    (job.path / "chat_template.jinja").write_text(vocabulary.tokenizer.chat_template)
    (job.path / "stop_ids.json").write_text(json.dumps(sorted(vocabulary.stop_ids)))
    config = context.config
    launch_ranks(job, config.execution.processes_per_node, _followed(config, job))
    if job.node != 0:
        # Its result is that of node 0; the operator reads whichever pod has one.
        found = find_artifact(context.store, STAGE_ARTIFACT[config.stage], config.fingerprint)
        return (
            result_of(context.store, config, found)
            if found
            else StageResult(stage=config.stage, attempt=config.execution.attempt, shard=job.node)
        )
    counts |= json.loads((job.path / "changed.json").read_text())
    metrics = summarise(job.metrics_file)
    (job.export_folder / "README.md").write_text(_card(context, lineage))
    writer = ArtifactWriter(context.store, STAGE_ARTIFACT[config.stage], config.fingerprint)
    writer.add_folder(job.export_folder)
    writer.add_file(job.metrics_file, "metrics.jsonl")
    if measure is not None:
        measured = measure(job.export_folder)
        if measured is not None:
            writer.add_bytes(measured.content, measured.name)
            metrics |= measured.metrics
    sealed = writer.seal(
        stage=config.stage,
        inputs=lineage.inputs,
        config=canonical_work(config) | ({"tokens": lineage.tokens.fingerprint} if lineage.tokens is not None else {}),
        rows=rows,
        iterate=lineage.iterate,
        model=ModelLineage(base=lineage.base),
        metrics=metrics,
        counts=counts,
        libraries=libraries("torch", "transformers", "deepspeed"),
    )
    remove_checkpoints(context.store, sealed.ref)
    return result_of(context.store, config, sealed)


@contextmanager
def _followed(config: StageConfig, job: TrainingJob) -> Iterator[None]:
    """By node 0, whose rank 0 writes the metrics; by the stage's process, which waits for its ranks: no step is held by it."""
    if job.node != 0:
        yield
        return
    key, origin = metrics_key(config.run, config.iteration, config.stage), Origin.of_training(config)
    # A store of its own, which gives up sooner than that of checkpoints and artifacts.
    copy = StoreCopy(lambda: open_store(config.storage, retry_seconds=RETRY_SECONDS), key, job.metrics_file)
    with copy, followed(origin, job.metrics_file, os.environ):
        yield


def new_job(
    context: StageContext,
    objective: ObjectiveName,
    start: PolicyInput,
    work: SftWork | PreferenceModelWork | TrainWork,
    *,
    classifier: bool = False,
) -> tuple[TrainingJob, Vocabulary]:
    """A job that starts from `start`, and the vocabulary of that model. What only one stage has is added by model_copy.

    Raises ConfigurationProblem.
    """
    folder, trust = model_folder(context, start.model), trusts(start.model)
    vocabulary = vocabulary_of(start, folder, classifier=classifier)
    config, execution = context.config, context.config.execution
    own = context.scratch / str(config.stage)
    own.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(
        objective=objective,
        folder=str(own),
        examples=str(own / "examples.arrow"),
        model_folder=str(folder),
        trust_remote_code=trust,
        dtype=start.dtype,
        optimization=work.optimization,
        deepspeed=deepspeed_config(work.deepspeed, start.dtype, work.optimization, revision=work.deepspeed_revision),
        gradient_checkpointing=execution.gradient_checkpointing,
        token_budget=execution.token_budget,
        checkpoint_every_steps=execution.checkpoint_every_steps,
        seed=training_seed(config),
        fingerprint=config.fingerprint,
        storage=config.storage,
        attempt=execution.attempt,
        node=int(os.environ.get("PET_NODE_RANK", "0")),
    )
    return job, vocabulary


def training_seed(config: StageConfig) -> int:
    """Of the order of the data, and of a new head."""
    return hashed_seed(config.seed, config.iteration or 0, config.stage)


def summarise(metrics_file: Path) -> dict[Metric, MetricValue]:
    """Means over the last tenth of the steps; a whole pass is too noisy to gate on and a single step is noise."""
    lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    tail = lines[-max(1, len(lines) // 10) :]
    return {
        name: metric(sum(line[key] for line in tail) / len(tail)) for name, key in TRAIN_METRICS.items() if tail and key in tail[0]
    }


def _card(context: StageContext, lineage: Lineage) -> str:
    config = context.config
    head = ["---", "library_name: transformers", "tags: [rlhf-operator]"]
    if lineage.base is not None:
        head.append(f"base_model: {lineage.base.removeprefix('hf://')}")
    labeler = "judge" if config.stage is StageName.JUDGE else "reward model"
    name = f"pi_{lineage.iterate}" if lineage.iterate is not None else labeler
    body = [
        "---",
        f"# {config.run.name}: {name}",
        "",
        f"Made by stage `{config.stage}` of RLHFRun {config.run.namespace}/{config.run.name} (rlhf-operator).",
        f"Fingerprint: `{config.fingerprint}`.",
        "`manifest.json` beside this file names every input with its digest; `metrics.jsonl` has a line a step.",
        "",
    ]
    return "\n".join(head + body)
