"""RLHFRun: the whole of an online iterative RLHF run, as one object. Defaults are the paper's (arXiv 2405.07863)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from rlhf_api.base import Count, EntryName, Model, ObjectName, unique_by
from rlhf_api.words import API_VERSION, KIND

from .compute import Pod, Queue, Retry
from .data import Prompts
from .evaluation import Approval, Evaluate, Gate, Selection
from .labeler import Annotations, Labeler
from .model import Policy
from .sampling import Sample
from .status import RLHFRunStatus
from .storage import Storage
from .training import Label, Reference, Sft, Train

RunName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
ImageName = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class ImagePullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class LocalObjectReference(Model):
    name: ObjectName
    """Name of the Secret."""


class RLHFRunSpec(Model):
    """Required: storage.url, policy.model.uri, reward, prompts.source, evaluate.judge."""

    image: ImageName | None = None
    """The one image of all stages; absent: the operator's own."""
    image_pull_policy: ImagePullPolicy | None = None
    """When nodes pull the image; absent: as Kubernetes does by default."""
    image_pull_secrets: Annotated[list[LocalObjectReference], Field(max_length=16), unique_by("name")] = []
    """Secrets with credentials of the image's registry."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of everything random: hold-outs, sampling, order of data, initial heads."""
    iterations: Annotated[int, Field(ge=1, le=50)] = 3
    """T. May be raised while the run works."""
    storage: Storage
    policy: Policy
    sft: Sft | None = None
    """Absent: pi_0 is policy.model."""
    reward: Labeler
    """The training reward: the labeler that scores samples."""
    prompts: Prompts
    sample: Sample = Sample()
    """n completions a prompt from a mixture of iterates and temperatures."""
    label: Label = Label()
    """Scores the samples and makes preference pairs."""
    reference: Reference = Reference()
    train: Train = Train()
    """Preference training of the policy."""
    evaluate: Evaluate
    """Compares each iterate with others on held-out prompts."""
    selection: Selection = Selection()
    gates: Annotated[list[Gate], Field(max_length=16), unique_by("name")] = []
    """Conditions looked at after each iteration; none by default."""
    pod_defaults: Pod = Pod()
    """Merged under every stage's pod: maps by key, env and volumes by name, tolerations appended, the rest replaced."""
    queue: Queue | None = None
    """Kueue; absent: plain Jobs."""
    retry: Retry = Retry()
    suspend: bool = False
    """Stop the stage at work after a checkpoint, and wait."""
    cancel: bool = False
    """End the run. One way."""
    approvals: Annotated[list[Approval], Field(max_length=256)] = []
    """Answers to gates that paused the run. Append-only."""
    annotations: Annotated[list[Annotations], Field(max_length=256), unique_by("iteration")] = []
    """What people answered, by iteration, where reward is Human; `rlhfctl annotations import` adds it. Append-only."""
    active_deadline_seconds: Count | None = None
    """Of work: neither queue nor suspension."""
    pending_deadline_seconds: Count | None = None
    """For a pod that was admitted and cannot start."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """After this the run's Jobs, Services and ConfigMaps are removed; artifacts stay."""


class ObjectMeta(Model):
    """What we read of a Kubernetes ObjectMeta; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow")

    name: RunName
    """Name of the run: an RFC 1035 label, part of the names of its Jobs."""
    namespace: EntryName = "default"
    """Namespace of the run."""
    uid: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Given by the API server or the local backend."""
    generation: int | None = None
    """Counts the changes of spec."""
    creation_timestamp: datetime | None = None
    """When it was created."""
    deletion_timestamp: datetime | None = None
    """When its deletion was asked for."""
    resource_version: str | None = None
    """Version of the stored object."""
    labels: dict[str, str] | None = None
    """Labels of the run."""
    annotations: dict[str, str] | None = None
    """Annotations of the run."""


class RLHFRun(Model):
    """What `kubectl get rlhfrun -o yaml` prints, and what run.yaml and status.json are together."""

    api_version: Literal["rlhf.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    """Version of this schema."""
    kind: Literal["RLHFRun"] = KIND  # type: ignore[assignment]
    """RLHFRun."""
    metadata: ObjectMeta
    """Name, namespace and what else Kubernetes keeps of an object."""
    spec: RLHFRunSpec
    """What is to be done."""
    status: RLHFRunStatus | None = None
    """What has been done; written by the operator or the local backend."""
