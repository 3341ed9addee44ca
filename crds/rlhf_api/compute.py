"""What a stage runs on, and how training is optimised."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, StringConstraints

from .base import Count, EntryName, Model, NonNegative, ObjectName, Positive, Share, WholeNumber, unique_by
from .storage import ConfigMapKey

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", max_length=32)]
QuantityLike = Annotated[StrictInt | StrictFloat | Quantity, Field(union_mode="left_to_right")]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]([-._a-zA-Z0-9/]*[a-zA-Z0-9])?$", max_length=128)]
ResourceList = Annotated[dict[ResourceName, QuantityLike], Field(max_length=16)]
LabelKey = Annotated[str, StringConstraints(max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
#: Variables that belong to us, to the loader or to the interpreter.
RESERVED_ENV_PREFIXES = ("PET_", "LD_", "PYTHON", "RLHF_", "JOB_COMPLETION_INDEX", "AWS_")


class Resources(Model):
    limits: ResourceList = {}
    requests: ResourceList = {}


class Toleration(Model):
    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    operator: Annotated[str, StringConstraints(pattern=r"^(Exists|Equal)$", max_length=6)] | None = None
    value: LabelValue | None = None
    effect: Annotated[str, StringConstraints(pattern=r"^(NoSchedule|PreferNoSchedule|NoExecute)$", max_length=16)] | None = None
    toleration_seconds: WholeNumber | None = None


class EnvVar(Model):
    """A plain variable; PET_*, LD_*, PYTHON*, RLHF_* and AWS_* are not for manifests."""

    name: EnvName
    value: Annotated[str, StringConstraints(max_length=4096)]


class PersistentVolumeClaim(Model):
    claim_name: ObjectName
    read_only: bool = True


class EmptyDir(Model):
    medium: Annotated[str, StringConstraints(pattern=r"^(Memory)?$", max_length=6)] | None = None
    size_limit: Quantity | None = None


class ConfigMapVolume(Model):
    name: ObjectName


class Volume(Model):
    """Exactly one of the three kinds beside the name."""

    name: EntryName
    persistent_volume_claim: PersistentVolumeClaim | None = None
    empty_dir: EmptyDir | None = None
    config_map: ConfigMapVolume | None = None


class VolumeMount(Model):
    name: EntryName
    mount_path: Annotated[str, StringConstraints(pattern=r"^/.+$", max_length=512)]
    sub_path: Annotated[str, StringConstraints(max_length=512)] | None = None
    read_only: bool = True


class Pod(Model):
    """What of a stage's pods a manifest may shape: an allow-list. Nothing here has a default, so that podDefaults can merge."""

    resources: Resources | None = None
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = None
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    affinity: dict[str, Any] | None = None
    """A Kubernetes affinity, passed on as it is."""
    priority_class_name: ObjectName | None = None
    runtime_class_name: ObjectName | None = None
    env: Annotated[list[EnvVar], Field(max_length=64), unique_by("name")] | None = None
    volumes: Annotated[list[Volume], Field(max_length=16), unique_by("name")] | None = None
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16)] | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = None
    annotations: Annotated[dict[LabelKey, AnnotationValue], Field(max_length=32)] | None = None
    shm_size: Quantity | None = None
    """Size of /dev/shm."""
    termination_grace_period_seconds: WholeNumber | None = None


class Queue(Model):
    """Kueue's LocalQueue for the stage's Job."""

    name: ObjectName | None = None
    priority_class: ObjectName | None = None
    """A WorkloadPriorityClass; the one field that may change while the run works."""
    cpu_name: ObjectName | None = None
    """The queue of preflight, resolve and finalize; absent: none."""


class Offload(StrEnum):
    NONE = "None"
    OPTIMIZER = "Optimizer"
    ALL = "All"


class DeepSpeed(Model):
    """ZeRO; `config` replaces the generated configuration as a whole."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 2
    offload: Offload = Offload.NONE
    """Move optimizer states, or these and parameters (zeroStage 3), to the host's memory."""
    config: ConfigMapKey | None = None
    """A whole DeepSpeed configuration (JSON) in a ConfigMap."""


class Compute(Model):
    """One struct for every training stage."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    deepspeed: DeepSpeed = DeepSpeed()
    pod: Pod | None = None
    queue: Queue | None = None

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node


class LrSchedule(StrEnum):
    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Optimization(Model):
    """AdamW and its schedule. Defaults of epochs, learning rate and batch differ by stage; each is the paper's."""

    epochs: Annotated[float, Field(gt=0.0, le=1000.0)] = 2.0
    max_steps: Count | None = None
    """An upper bound on optimizer steps, whatever the epochs."""
    learning_rate: Positive
    lr_schedule: LrSchedule = LrSchedule.COSINE
    warmup_ratio: Share = 0.03
    global_batch_size: Count
    """Pairs (train, reward) or conversations (sft) an optimizer step, over all ranks."""
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = True


class SftOptimization(Optimization):
    learning_rate: Positive = 2.0e-5
    global_batch_size: Count = 128


class RewardOptimization(Optimization):
    epochs: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    learning_rate: Positive = 2.0e-6
    global_batch_size: Count = 512


class DpoOptimization(Optimization):
    learning_rate: Positive = 5.0e-7
    global_batch_size: Count = 128


class Retry(Model):
    """Attempts beyond the first, by stage."""

    application: Annotated[int, Field(ge=0, le=100)] = 2
    infrastructure: Annotated[int, Field(ge=0, le=1000)] = 100
    backoff_seconds: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    """Wait before the first retry after an application error; it doubles, up to an hour."""
