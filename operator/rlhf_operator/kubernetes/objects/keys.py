"""Which run an object is, or belongs to."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from rlhf_operator.kubernetes.api.resources import Json

from .labels import RUN_LABEL


class RunKey(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Kind(StrEnum):
    RUN = "Run"
    JOB = "Job"
    POD = "Pod"


def run_of(kind: Kind, obj: Json) -> RunKey | None:
    """The run that an object is, or belongs to by its label."""
    metadata = obj["metadata"]
    name = metadata["name"] if kind is Kind.RUN else (metadata.get("labels") or {}).get(RUN_LABEL)
    return RunKey(metadata["namespace"], name) if name else None
