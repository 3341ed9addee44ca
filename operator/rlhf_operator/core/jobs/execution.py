"""How a stage runs: shards, ranks, pod and queue. Nothing here is in a fingerprint."""

from __future__ import annotations

from rlhf_api.resource.compute import Compute, Queue
from rlhf_api.resource.evaluation import benchmarks_read_by
from rlhf_api.resource.labeler import JudgeEndpoint, Labeler
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.sampling import Sample
from rlhf_api.resource.training import Label, Reference
from rlhf_api.stage import Execution
from rlhf_api.words import StageName

#: Stages whose Job has an index a shard, each retried by itself.
SHARDED = frozenset({StageName.SAMPLE, StageName.LABEL, StageName.REFERENCE})
#: Stages that run without a GPU, in the CPU queue.
CPU_STAGES = frozenset({StageName.PREFLIGHT, StageName.RESOLVE, StageName.ASK, StageName.FINALIZE})


def execution(spec: RLHFRunSpec, stage: StageName, attempt: int, allow_cpu: bool) -> Execution:
    compute = compute_of(spec, stage)
    return Execution(
        attempt=attempt,
        shards=shards_of(spec, stage),
        nodes=1 if compute is None else compute.nodes,
        processes_per_node=1 if compute is None else compute.processes_per_node,
        token_budget=spec.train.token_budget if stage is StageName.TRAIN else None,
        checkpoint_every_steps=spec.train.checkpoint_every_steps,
        gradient_checkpointing=_gradient_checkpointing(spec, stage),
        engine=spec.sample.engine,
        allow_cpu=allow_cpu,
        reward_endpoint=_endpoint(spec.reward) if stage in (StageName.LABEL, StageName.EVALUATE) else None,
        judge_endpoint=_endpoint(spec.evaluate.judge) if stage is StageName.EVALUATE else None,
        benchmarks=(benchmarks_read_by(spec.gates) or None) if stage is StageName.BENCHMARK else None,
    )


def _endpoint(labeler: Labeler) -> JudgeEndpoint | None:
    return labeler.judge.endpoint if labeler.judge is not None else None


def compute_of(spec: RLHFRunSpec, stage: StageName) -> Compute | None:
    """Of a training stage; None for the others."""
    match stage:
        case StageName.SFT:
            return None if spec.sft is None else spec.sft.compute
        case StageName.REWARD:
            return None if spec.reward.training is None else spec.reward.training.compute
        case StageName.JUDGE:
            return None if spec.evaluate.judge.training is None else spec.evaluate.judge.training.compute
        case StageName.TRAIN:
            return spec.train.compute
        case _:
            return None


def shards_of(spec: RLHFRunSpec, stage: StageName) -> int:
    section = _sharded_section(spec, stage)
    return 1 if section is None else section.shards


def parallelism_of(spec: RLHFRunSpec, stage: StageName) -> int:
    """Shards at a time."""
    section = _sharded_section(spec, stage)
    return 1 if section is None else min(section.parallelism, section.shards)


def queue_of(spec: RLHFRunSpec, stage: StageName) -> Queue | None:
    """The stage's own queue over the run's; a CPU stage goes to the CPU queue, or to none."""
    if stage in CPU_STAGES:
        if spec.queue is None or spec.queue.cpu_name is None:
            return None
        return Queue(name=spec.queue.cpu_name, priority_class=spec.queue.priority_class)
    own = _stage_queue(spec, stage)
    if own is None:
        return spec.queue
    inherited = spec.queue or Queue()
    return Queue(name=own.name or inherited.name, priority_class=own.priority_class or inherited.priority_class)


def _sharded_section(spec: RLHFRunSpec, stage: StageName) -> Sample | Label | Reference | None:
    match stage:
        case StageName.SAMPLE:
            return spec.sample
        case StageName.LABEL:
            return spec.label
        case StageName.REFERENCE:
            return spec.reference
        case _:
            return None


def _stage_queue(spec: RLHFRunSpec, stage: StageName) -> Queue | None:
    compute = compute_of(spec, stage)
    if compute is not None:
        return compute.queue
    if stage in (StageName.EVALUATE, StageName.BENCHMARK):
        return spec.evaluate.queue
    section = _sharded_section(spec, stage)
    return None if section is None else section.queue


def _gradient_checkpointing(spec: RLHFRunSpec, stage: StageName) -> bool:
    match stage:
        case StageName.SFT if spec.sft is not None:
            return spec.sft.optimization.gradient_checkpointing
        case StageName.REWARD if spec.reward.training is not None:
            return spec.reward.training.optimization.gradient_checkpointing
        case StageName.JUDGE if spec.evaluate.judge.training is not None:
            return spec.evaluate.judge.training.optimization.gradient_checkpointing
        case _:
            return spec.train.optimization.gradient_checkpointing
