"""StageConfig: what one stage process is told, whole. The core writes it; `python -m rlhf_trainer STAGE --config FILE` reads it.

Every union member is the work of one stage. What `work` holds, and nothing beside it, decides what the stage's artifact is: the
fingerprint is taken over it. Shard count, ranks, attempt and storage are outside, for they change how, not what.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from rlhf_api.resource.compute import DeepSpeed, Optimization
from rlhf_api.resource.data import DataSource, Prompts
from rlhf_api.resource.evaluation import Against, EvaluationSampling, LmEval, Selection
from rlhf_api.resource.labeler import JudgeEndpoint, Labeler, PairOrders, PreferenceCleaning, RewardHeldOut
from rlhf_api.resource.model import ChatTemplate, Dtype, ModelRef
from rlhf_api.resource.sampling import Engine, MixtureEntry
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label, Loss, Overlong, WarmStart

from .base import Count, Model, Revision, Sha256, WholeNumber
from .metrics import BenchmarkMetric, BenchmarkValue, Metric, MetricValue
from .words import ArtifactKind, StageName

#: Raise a stage's number when its artifact's meaning changes: old artifacts are then not found any more.
FORMAT_VERSION: dict[StageName, int] = dict.fromkeys(StageName, 1)


class ArtifactRef(Model):
    """A sealed artifact of the run's own store; it lies at <storage.url>/<kind>/<fingerprint>/."""

    kind: ArtifactKind
    fingerprint: Sha256
    digest: Sha256
    """SHA-256 of the bytes of its manifest.json."""


class ModelInput(Model):
    """A model to load: an iterate or reward model of this store, or one from outside. Exactly one of the two."""

    artifact: ArtifactRef | None = None
    source: ModelRef | None = None
    """With its revision resolved."""


class PolicyInput(Model):
    """An iterate, with what of spec.policy its use depends on."""

    model: ModelInput
    dtype: Dtype
    chat_template: ChatTemplate | None = None
    """Absent: the tokenizer's own. Artifacts carry theirs already."""
    template_revision: Revision | None = None
    """Of the text of a template in a ConfigMap."""
    stop_token_ids: list[WholeNumber] = []


class PromptIdentity(StrEnum):
    """By what two prompts are one."""

    MESSAGES = "Messages"
    """The same roles and contents, to the last blank. Runs that began before there was a choice."""
    RENDERED = "Rendered"
    """The same text under the policy's chat template."""
    RENDERED_WITH_TOOLS = "RenderedWithTools"
    """The same, of runs with prompts that have tools: they are in the text, and samples and evaluation have a column of them."""


class PromptSlice(Model):
    """The prompts of one iteration, after the hold-outs."""

    iterations: Count
    """T, over which the hold-outs are spread."""
    iteration: Count
    prompts: Prompts
    """The whole section: hold-outs are taken from all sources. {iteration} is still in the uri of one that has it."""
    source_revisions: list[Revision] = []
    """Of the sources of iterations 1..T, where the uri has {iteration} and all were resolved."""
    max_prompt_length: Count
    identity: PromptIdentity = PromptIdentity.MESSAGES


class HeldOutInput(Model):
    """The prompts of validation and test, which no training may see; runs that began before did not look."""

    prompts: Prompts
    """Of it, what hold-outs depend on: perIteration is the default."""
    iterations: Count
    """As in PromptSlice; 1 where the uri has no {iteration}."""
    source_revisions: list[Revision] = []
    identity: PromptIdentity
    policy: PolicyInput | None = None
    """By whose template they are known; absent: the model that the stage starts from."""


class PreflightWork(Model):
    stage: Literal[StageName.PREFLIGHT] = StageName.PREFLIGHT
    spec: dict[str, object]
    """The whole RLHFRunSpec, on the wire form."""


class ResolveWork(Model):
    """Look one artifact up; no GPU. Booked on the stage that it resolves."""

    stage: Literal[StageName.RESOLVE] = StageName.RESOLVE
    target: StageName
    kind: ArtifactKind


class SftWork(Model):
    stage: Literal[StageName.SFT] = StageName.SFT
    policy: PolicyInput
    data: list[DataSource]
    held_out: HeldOutInput | None = None
    optimization: Optimization
    max_length: Count
    deepspeed: DeepSpeed
    deepspeed_revision: Revision | None = None
    """Of the text of deepspeed.config."""


class PreferenceModelWork(Model):
    """A Bradley-Terry model from preferences, or a pairwise one, for whichever stage."""

    stage: StageName
    base: PolicyInput
    data: list[DataSource]
    held_out: HeldOutInput | None = None
    optimization: Optimization
    max_length: Count
    min_margin: float
    deepspeed: DeepSpeed
    deepspeed_revision: Revision | None = None
    """Of the text of deepspeed.config."""
    cleaning: PreferenceCleaning | None = None
    held_out_pairs: RewardHeldOut | None = None
    orders: PairOrders | None = None
    """In which orders a pairwise preference model is asked about the responses of a pair; absent: it is a Bradley-Terry model."""


class RewardWork(PreferenceModelWork):
    """The training reward."""

    stage: Literal[StageName.REWARD] = StageName.REWARD


class JudgeWork(PreferenceModelWork):
    """The judge."""

    stage: Literal[StageName.JUDGE] = StageName.JUDGE


class Sampler(Model):
    """A mixture entry with its iterate resolved."""

    entry: MixtureEntry
    iterate: WholeNumber
    policy: PolicyInput


class SampleWork(Model):
    stage: Literal[StageName.SAMPLE] = StageName.SAMPLE
    prompts: PromptSlice
    samplers: list[Sampler]
    completions_per_prompt: Count
    max_new_tokens: Count
    deterministic: bool


class AskWork(Model):
    """Which pairs of responses people are asked about."""

    stage: Literal[StageName.ASK] = StageName.ASK
    samples: ArtifactRef
    pairs_per_prompt: Count


class LabelWork(Model):
    stage: Literal[StageName.LABEL] = StageName.LABEL
    samples: ArtifactRef
    labeler: Labeler
    reward_model: ModelInput | None = None
    rule_revision: Revision | None = None
    """Of the labeler's code, where it is a rule and preflight resolved it."""
    label: Label
    completions_per_prompt: Count
    questions: ArtifactRef | None = None
    """What people were asked, where they are the labeler."""
    annotations: Sha256 | None = None
    """What they answered: the SHA-256 of annotations/<it>.parquet of the store."""


class LabelSet(Model):
    """D_i."""

    iteration: Count
    labels: ArtifactRef


class OfflineSet(Model):
    """D_off: preferences from outside, beside the run's own."""

    policy: PolicyInput
    """Whose tokenizer and template render them: the policy as it came, which every iterate has inherited them from."""
    data: list[DataSource]
    held_out: HeldOutInput | None = None
    with_scores: bool = False
    """Rows without scores are left out: the loss compares them."""


class ReferenceWork(Model):
    """Log-probs of every pair of `data`, and of `offline`, under one iterate."""

    stage: Literal[StageName.REFERENCE] = StageName.REFERENCE
    reference: PolicyInput
    data: list[LabelSet]
    offline: OfflineSet | None = None
    max_length: Count
    max_prompt_length: Count
    overlong: Overlong


class TrainSet(Model):
    """D_i and, where the loss compares with a reference, its cached log-probs."""

    iteration: Count
    labels: ArtifactRef
    reference_logps: ArtifactRef | None = None


class TrainWork(Model):
    stage: Literal[StageName.TRAIN] = StageName.TRAIN
    start: PolicyInput
    reference: PolicyInput | None = None
    data: list[TrainSet]
    offline: OfflineSet | None = None
    offline_logps: ArtifactRef | None = None
    """As TrainSet.reference_logps, of `offline`."""
    loss: Loss
    warm_start: WarmStart
    optimization: Optimization
    max_length: Count
    max_prompt_length: Count
    overlong: Overlong
    deepspeed: DeepSpeed
    deepspeed_revision: Revision | None = None
    """Of the text of deepspeed.config."""


class EvaluateWork(Model):
    """iterate 0 is evaluated once, before iteration 1, and has nothing to be compared with."""

    stage: Literal[StageName.EVALUATE] = StageName.EVALUATE
    iterate: WholeNumber
    policy: PolicyInput
    initial: PolicyInput
    """pi_0, for klToInitial."""
    initial_evaluation: ArtifactRef | None = None
    previous_evaluation: ArtifactRef | None = None
    against: list[Against]
    judge: Labeler
    judge_model: ModelInput | None = None
    judge_rule_revision: Revision | None = None
    """As LabelWork.rule_revision."""
    reward: Labeler
    reward_model: ModelInput | None = None
    reward_rule_revision: Revision | None = None
    prompts: Prompts
    source_revisions: list[Revision] = []
    """As in PromptSlice."""
    prompt_identity: PromptIdentity = PromptIdentity.MESSAGES
    iterations: Count
    sampling: EvaluationSampling
    max_new_tokens: Count
    max_prompt_length: Count


class BenchmarkWork(Model):
    """Tasks of others, answered by one iterate: figures to report, and for gates that read them."""

    stage: Literal[StageName.BENCHMARK] = StageName.BENCHMARK
    iterate: WholeNumber
    policy: PolicyInput
    lm_eval: LmEval
    tasks_revision: Revision | None = None
    """Of all of its tasks, their data files and code, as preflight found them."""


class IterateRecord(Model):
    """What finalize knows of an iterate."""

    iterate: WholeNumber
    policy: ModelInput
    evaluation: ArtifactRef
    discarded: bool = False


class FinalizeWork(Model):
    stage: Literal[StageName.FINALIZE] = StageName.FINALIZE
    iterates: list[IterateRecord]
    best: WholeNumber
    selection: Selection
    trained: list[ArtifactRef] = []
    """Models whose trainings were this run's own: what is left of their checkpoints goes."""
    removed: list[ArtifactRef] = []
    """Artifacts that this run made and that spec.storage.retention gives up."""
    without_masters: list[ArtifactRef] = []
    """Policies that are kept without their fp32 master weights."""


Work = Annotated[
    PreflightWork
    | ResolveWork
    | SftWork
    | RewardWork
    | JudgeWork
    | SampleWork
    | AskWork
    | LabelWork
    | ReferenceWork
    | TrainWork
    | EvaluateWork
    | BenchmarkWork
    | FinalizeWork,
    Field(discriminator="stage"),
]


class RunRef(Model):
    namespace: Annotated[str, StringConstraints(max_length=63)]
    name: Annotated[str, StringConstraints(max_length=63)]
    uid: Annotated[str, StringConstraints(max_length=64)]


class Execution(Model):
    """How, not what: nothing here changes the artifact's meaning, so nothing here is in the fingerprint."""

    attempt: Count = 1
    shards: Count = 1
    nodes: Count = 1
    processes_per_node: Count = 1
    token_budget: Count | None = None
    checkpoint_every_steps: Count = 50
    gradient_checkpointing: bool = True
    engine: Engine = Engine()
    allow_cpu: bool = False
    """The spec asks for GPUs, and `--cpu` says to go without."""
    reward_endpoint: JudgeEndpoint | None = None
    """Of a training reward that is asked over the network: with its key's name, and how it is asked."""
    judge_endpoint: JudgeEndpoint | None = None
    """The same of the judge."""
    benchmarks: list[BenchmarkMetric] | None = None
    """Of a benchmark: what gates read of it, which is in the result, too."""


class StageConfig(Model):
    run: RunRef
    iteration: WholeNumber | None = None
    """Absent for the stages of the run."""
    seed: WholeNumber
    fingerprint: Sha256
    storage: Storage
    execution: Execution = Execution()
    work: Work

    @property
    def stage(self) -> StageName:
        return self.work.stage


class StageResult(Model):
    """The last word of a stage process: at most 4,096 bytes of JSON at $RLHF_RESULT. The full report lies in the store."""

    stage: StageName
    attempt: Count = 1
    shard: WholeNumber | None = None
    """Of a worker that did not see its artifact sealed: it committed this shard, and that is all."""
    artifact: ArtifactRef | None = None
    folder: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Of an artifact that is a model: the folder of it that from_pretrained opens."""
    found: bool = False
    """It existed before this process: nothing was computed."""
    metrics: dict[Metric, MetricValue] = {}
    benchmarks: list[BenchmarkValue] = []
    """Those that the execution asks for."""
    counts: dict[str, int] = {}
    """Of what was read, kept, dropped (by reason)."""
    resolved: dict[str, str] = {}
    """preflight: revisions by the path of the reference in spec."""
    adoptable: WholeNumber = 0
    """preflight: how many stages of the chain, in order, lie sealed in the store."""
    problem: str | None = None
    """Of a failed stage: what happened, to what, and what to do."""
    reason: str | None = None
    """Of a failed stage: OOMKilled, StoreUnavailable, DiskFull, …"""
    warnings: list[str] = []
