"""What of a spec may change while its run works."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_operator.core.changes import immutable_changes
from support.runs import spec_of


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"suspend": True, "activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 5, "iterations": 3}, []),
        ({"approvals": [{"gate": "a", "iteration": 1}, {"gate": "b", "iteration": 1}]}, []),
        ({"approvals": []}, ["spec.approvals"]),
        ({"annotations": [{"iteration": 1, "digest": "a" * 64}, {"iteration": 2, "digest": "b" * 64}]}, []),
        ({"annotations": [{"iteration": 1, "digest": "b" * 64}]}, ["spec.annotations"]),
        ({"iterations": 1}, ["spec.iterations"]),
        ({"cancel": False}, ["spec.cancel"]),
        ({"seed": 1, "train": {"loss": {"beta": 0.2}}}, ["spec.seed", "spec.train.loss.beta"]),
        ({"queue": {"name": "gpu", "priorityClass": "high"}}, []),
        ({"queue": {"name": "other"}}, ["spec.queue.name"]),
    ],
    ids=str,
)
def test_what_of_a_spec_may_change(changes: dict[str, Any], refused: list[str]) -> None:
    before = {
        "approvals": [{"gate": "a", "iteration": 1}],
        "annotations": [{"iteration": 1, "digest": "a" * 64}],
        "cancel": True,
        "queue": {"name": "gpu", "priorityClass": "low"},
    }
    assert immutable_changes(spec_of(**before), spec_of(**{**before, **changes})) == refused
