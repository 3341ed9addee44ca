"""`spec.storage`: where a run's artifacts live."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import DataKey, Model, ObjectName, StoreUrl


class SecretReference(Model):
    """Of the run's namespace; the operator never reads it."""

    name: ObjectName
    """Name of the Secret."""


class ConfigMapKey(Model):
    """One key of a ConfigMap in the run's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key in it."""


class StorageCredentials(Model):
    """At most one of the two; neither means the node's own identity."""

    secret_ref: SecretReference | None = None
    """Keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where needed, AWS_SESSION_TOKEN."""
    service_account_name: ObjectName | None = None
    """A ServiceAccount with a cloud identity; it must be on the chart's allow-list."""


class AddressingStyle(StrEnum):
    AUTO = "Auto"
    PATH = "Path"
    VIRTUAL = "Virtual"


class RetentionPolicy(StrEnum):
    RETAIN = "Retain"
    KEEP_BEST = "KeepBest"
    DELETE = "Delete"


class Retention(Model):
    """What the finalize stage removes, of what this run made; what it found in the store stays."""

    samples: RetentionPolicy = RetentionPolicy.RETAIN
    """Samples, labels and reference log-probs. KeepBest keeps those that the best iterate was trained on; Delete removes all."""
    checkpoints: RetentionPolicy = RetentionPolicy.RETAIN
    """Iterates. KeepBest removes all but the best; Delete removes its fp32 master weights too, for warmStart: Master."""


class Storage(Model):
    """Artifacts of the run: data and checkpoints of every iteration."""

    url: StoreUrl
    """s3://bucket/prefix or file:///folder."""
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://.+$", max_length=1024)] | None = Field(
        default=None, alias="endpointURL"
    )
    """The S3 endpoint; absent on AWS."""
    region: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    """The bucket's region; absent: as the environment says."""
    addressing_style: AddressingStyle = AddressingStyle.AUTO
    """How requests name the bucket: in the path, in the host name, or as boto3 decides."""
    ca_bundle: ConfigMapKey | None = None
    """A ConfigMap key with the PEM certificates of the endpoint's authority."""
    credentials: StorageCredentials | None = None
    retention: Retention = Retention()
