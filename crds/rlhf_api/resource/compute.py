"""What a stage runs on, and how training is optimised."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from rlhf_api.base import Count, DataKey, EntryName, Model, NonNegative, ObjectName, Positive, Share, WholeNumber, unique_by

from .storage import ConfigMapKey

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", max_length=32)]
#: A whole number or a quantity; a fraction is written as text ("0.5"), as in every custom resource.
QuantityLike = Annotated[Annotated[StrictInt, Field(ge=0)] | Quantity, Field(union_mode="left_to_right")]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]([-._a-zA-Z0-9/]*[a-zA-Z0-9])?$", max_length=128)]
ResourceList = Annotated[dict[ResourceName, QuantityLike], Field(max_length=16)]
LabelKey = Annotated[str, StringConstraints(max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
#: Variables that belong to us, to the loader or to the interpreter.
RESERVED_ENV_PREFIXES = ("PET_", "LD_", "PYTHON", "RLHF_", "JOB_COMPLETION_INDEX", "AWS_")


#: A real one is nine deep. The API server bounds no object that it knows nothing of.
MAX_AFFINITY_DEPTH = 16


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _bounded_depth(value: dict[str, Any]) -> dict[str, Any]:
    """Without recursion, for what it looks for is what recursion dies of."""
    level: list[Any] = [value]
    for _ in range(MAX_AFFINITY_DEPTH):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"nested deeper than {MAX_AFFINITY_DEPTH} levels; no affinity of Kubernetes is")
    return value


Affinity = Annotated[dict[str, Any], AfterValidator(_bounded_depth)]


class Resources(Model):
    limits: ResourceList = {}
    """By resource name: what a container may use at most; nvidia.com/gpu counts whole GPUs."""
    requests: ResourceList = {}
    """By resource name: what the scheduler sets aside; absent: the limits."""


class Toleration(Model):
    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    """The taint's key; absent: every key, with operator Exists."""
    operator: Annotated[str, StringConstraints(pattern=r"^(Exists|Equal)$", max_length=6)] | None = None
    """Exists or Equal; absent: Equal."""
    value: LabelValue | None = None
    """The taint's value, with operator Equal."""
    effect: Annotated[str, StringConstraints(pattern=r"^(NoSchedule|PreferNoSchedule|NoExecute)$", max_length=16)] | None = None
    """NoSchedule, PreferNoSchedule or NoExecute; absent: all."""
    toleration_seconds: WholeNumber | None = None
    """Seconds that a pod stays on a node with a NoExecute taint; absent: for ever."""


class SecretKeySelector(Model):
    """One key of a Secret in the run's namespace; the operator never reads it."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key in it."""


class EnvVarSource(Model):
    """Where a value comes from that is not for manifests."""

    secret_key_ref: SecretKeySelector
    """A key of a Secret. A local run takes the variable of the same name from its own environment."""


class EnvVar(Model):
    """A variable with exactly one of value and valueFrom; PET_*, LD_*, PYTHON*, RLHF_* and AWS_* are not for manifests."""

    name: EnvName
    """Name of the variable."""
    value: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """Its value, as text: put numbers and booleans in quotes."""
    value_from: EnvVarSource | None = None
    """Where its value comes from."""


class PersistentVolumeClaim(Model):
    claim_name: ObjectName
    """Name of the claim in the run's namespace."""
    read_only: bool = True
    """Attach it for reading only; absent: true."""


class EmptyDir(Model):
    medium: Annotated[str, StringConstraints(pattern=r"^(Memory)?$", max_length=6)] | None = None
    """Memory for a tmpfs; absent: the node's disk."""
    size_limit: Quantity | None = None
    """Most bytes that it may hold, as a quantity: 10Gi."""


class ConfigMapVolume(Model):
    name: ObjectName
    """Name of the ConfigMap in the run's namespace."""


class Volume(Model):
    """Exactly one of the three kinds beside the name."""

    name: EntryName
    """What volumeMounts call it."""
    persistent_volume_claim: PersistentVolumeClaim | None = None
    """An existing claim."""
    empty_dir: EmptyDir | None = None
    """An empty folder that lives as long as the pod."""
    config_map: ConfigMapVolume | None = None
    """The keys of a ConfigMap, as files."""


class VolumeMount(Model):
    name: EntryName
    """Name of a volume of this pod or of podDefaults."""
    mount_path: Annotated[str, StringConstraints(pattern=r"^/.+$", max_length=512)]
    """Absolute path in the container."""
    sub_path: Annotated[str, StringConstraints(max_length=512)] | None = None
    """Path inside the volume; absent: its root."""
    read_only: bool = True
    """Mount it for reading only; absent: true."""


class Pod(Model):
    """What a manifest may shape of a stage's pods; nothing has a default."""

    resources: Resources | None = None
    """Limits and requests of the stage's container."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints of nodes that the pods tolerate."""
    affinity: Affinity | None = None
    """A Kubernetes affinity, passed on as it is."""
    priority_class_name: ObjectName | None = None
    """Name of a PriorityClass."""
    runtime_class_name: ObjectName | None = None
    """Name of a RuntimeClass."""
    env: Annotated[list[EnvVar], Field(max_length=64), unique_by("name")] | None = None
    """Variables of the stage's container, beside ours."""
    volumes: Annotated[list[Volume], Field(max_length=16), unique_by("name")] | None = None
    """Volumes that volumeMounts may name."""
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=16)] | None = None
    """Where the volumes appear in the stage's container."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] | None = None
    """Labels of the pods, beside ours."""
    annotations: Annotated[dict[LabelKey, AnnotationValue], Field(max_length=32)] | None = None
    """Annotations of the pods."""
    shm_size: Quantity | None = None
    """Size of /dev/shm, as a quantity: 16Gi."""
    termination_grace_period_seconds: WholeNumber | None = None
    """Seconds between SIGTERM and SIGKILL: time for a checkpoint; absent: 600."""


class Queue(Model):
    """Kueue's LocalQueue for the stage's Job."""

    name: ObjectName | None = None
    """Name of the LocalQueue in the run's namespace."""
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
    """ZeRO stage: 1 shards optimizer states over the ranks, 2 gradients, too, 3 parameters; 0 nothing."""
    offload: Offload = Offload.NONE
    """Move optimizer states, or these and parameters (zeroStage 3), to the host's memory."""
    config: ConfigMapKey | None = None
    """A whole DeepSpeed configuration (JSON) in a ConfigMap."""


class Compute(Model):
    """One struct for every training stage."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pods of the stage, one a node."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes (ranks) in each pod: one a GPU."""
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
    """Passes over the stage's data; a fraction is fine."""
    max_steps: Count | None = None
    """An upper bound on optimizer steps, whatever the epochs."""
    learning_rate: Positive
    """Peak learning rate of AdamW, after the warm-up."""
    lr_schedule: LrSchedule = LrSchedule.COSINE
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Share = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    global_batch_size: Count
    """Pairs (train, reward) or conversations (sft) an optimizer step, over all ranks."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """The gradient is scaled down to this global L2 norm."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, about a third more time."""


class SftOptimization(Optimization):
    """AdamW and its schedule; the batch counts conversations."""

    learning_rate: Positive = 2.0e-5
    """Peak learning rate of AdamW, after the warm-up."""
    global_batch_size: Count = 128
    """Conversations an optimizer step, over all ranks."""


class RewardOptimization(Optimization):
    """AdamW and its schedule; the batch counts pairs."""

    epochs: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Passes over the pairs; a fraction is fine."""
    learning_rate: Positive = 2.0e-6
    """Peak learning rate of AdamW, after the warm-up."""
    global_batch_size: Count = 512
    """Pairs an optimizer step, over all ranks."""


class PairwiseOptimization(Optimization):
    """AdamW and its schedule; the batch counts questions."""

    epochs: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Passes over the questions; a fraction is fine."""
    learning_rate: Positive = 5.0e-6
    """Peak learning rate of AdamW, after the warm-up."""
    global_batch_size: Count = 128
    """Questions an optimizer step, over all ranks: one of each pair, or two where both orders are asked."""


class DpoOptimization(Optimization):
    """AdamW and its schedule, new in each iteration; the batch counts pairs."""

    learning_rate: Positive = 5.0e-7
    """Peak learning rate of AdamW, after the warm-up."""
    global_batch_size: Count = 128
    """Pairs an optimizer step, over all ranks."""


class Retry(Model):
    """Attempts beyond the first, by stage."""

    application: Annotated[int, Field(ge=0, le=100)] = 2
    """Retries after application errors: exit 1, out of memory, full disk."""
    infrastructure: Annotated[int, Field(ge=0, le=1000)] = 100
    """Retries after infrastructure failures: preemption, lost node, store away."""
    backoff_seconds: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    """Wait before the first retry after an application error; it doubles, up to an hour."""
