"""The words that users and other programs see. Frozen: a change needs an ADR and a new version."""

from __future__ import annotations

from enum import IntEnum, StrEnum

GROUP = "rlhf.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RLHFRun"

#: Raised by a version that gives spec or status a field that no older one may pass over: it writes its number, as `status.format`,
#: into each run that uses the field. An older CRD cuts the field off, and the older operator sees the number alone (ADR 0019).
#: 2: prompts have tools, which an older version would leave out.
STATUS_FORMAT = 2


class StageName(StrEnum):
    """What a Job or a process group does. Order is the order of a run."""

    PREFLIGHT = "preflight"
    RESOLVE = "resolve"
    SFT = "sft"
    REWARD = "reward"
    JUDGE = "judge"
    SAMPLE = "sample"
    ASK = "ask"
    LABEL = "label"
    REFERENCE = "reference"
    TRAIN = "train"
    EVALUATE = "evaluate"
    BENCHMARK = "benchmark"
    FINALIZE = "finalize"


class ArtifactKind(StrEnum):
    """The folders of a store."""

    POLICY = "policy"
    REWARD_MODEL = "reward-model"
    SAMPLES = "samples"
    QUESTIONS = "questions"
    LABELS = "labels"
    REFERENCE_LOGPS = "reference-logps"
    EVALUATION = "evaluation"
    BENCHMARK = "benchmark"
    CHECKPOINT = "checkpoint"
    TOKENS = "tokens"


#: The kind of artifact that a stage seals; preflight, resolve and finalize seal none.
STAGE_ARTIFACT: dict[StageName, ArtifactKind] = {
    StageName.SFT: ArtifactKind.POLICY,
    StageName.REWARD: ArtifactKind.REWARD_MODEL,
    StageName.JUDGE: ArtifactKind.REWARD_MODEL,
    StageName.SAMPLE: ArtifactKind.SAMPLES,
    StageName.ASK: ArtifactKind.QUESTIONS,
    StageName.LABEL: ArtifactKind.LABELS,
    StageName.REFERENCE: ArtifactKind.REFERENCE_LOGPS,
    StageName.TRAIN: ArtifactKind.POLICY,
    StageName.EVALUATE: ArtifactKind.EVALUATION,
    StageName.BENCHMARK: ArtifactKind.BENCHMARK,
}


class Phase(StrEnum):
    """Of a run and of a stage in its status."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def finished(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class ConditionType(StrEnum):
    READY = "Ready"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Reason(StrEnum):
    """Why a run or stage is where it is, on conditions and Events."""

    CONFIGURATION_ERROR = "ConfigurationError"
    RETRY_BUDGET_EXHAUSTED = "RetryBudgetExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded"
    GATE_STOPPED = "GateStopped"
    GATE_PAUSED = "GatePaused"
    AWAITING_ANNOTATIONS = "AwaitingAnnotations"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    PREEMPTED = "Preempted"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    OOM_KILLED = "OOMKilled"
    STORE_UNAVAILABLE = "StoreUnavailable"
    # The state of a run, where nothing is wrong.
    ACCEPTED = "Accepted"
    RUNNING = "Running"
    COMPLETED = "Completed"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"


class StageExit(IntEnum):
    """Exit codes of a stage process."""

    DONE = 0
    APPLICATION = 1
    CONFIGURATION = 64
    TRANSIENT = 75
    PREEMPTED = 143
