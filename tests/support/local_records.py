"""Attempts as the local backend keeps them on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rlhf_api.words import StageName
from rlhf_operator.local.folder.records import AttemptRecord, PodRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record_of(*pods: PodRecord, **fields: Any) -> AttemptRecord:
    return AttemptRecord(
        **{
            "name": "tiny-i1-train-1",
            "uid": "1",
            "run_uid": "2",
            "stage": StageName.TRAIN,
            "attempt": 1,
            "resolving": False,
            "created_at": NOW,
            "completions": 1,
            "infrastructure_base": 0,
            "application_base": 0,
            "pods": pods,
            **fields,
        }
    )
