"""Events of a run: what `kubectl describe` and `rlhfctl events` show."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from rlhf_api.resource.run import ObjectMeta
from rlhf_api.words import API_VERSION, KIND
from rlhf_operator.core.actions import EmitEvent
from rlhf_operator.core.status.sentences import clip

from .labels import MANAGER, run_labels

#: Of an event's message.
_LONGEST = 1024


def event(metadata: ObjectMeta, action: EmitEvent, now: datetime) -> dict[str, Any]:
    """Of the run with this metadata. Its name is a function of what is told and of the status that it follows: told again it is the
    same object.
    """
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    told = (metadata.uid, metadata.resource_version, action.kind, action.iteration, action.stage, action.attempt, action.message)
    digest = hashlib.sha256(repr(tuple(map(str, told))).encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata.name}.{digest}", "namespace": metadata.namespace, "labels": run_labels(metadata)},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
        "type": "Warning" if action.warning else "Normal",
        "reason": str(action.reason or action.kind),
        "message": clip(action.message, _LONGEST),
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
    }
