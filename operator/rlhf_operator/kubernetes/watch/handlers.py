"""What kopf tells: into the index, and the run into the queue. Nothing is decided here."""

from __future__ import annotations

from typing import Any

import kopf

from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.objects.observation import phase_of
from rlhf_operator.kubernetes.telemetry.gaps import Gaps

from .index import Index
from .relist import WATCHED
from .workqueue import WorkQueue


def register(registry: kopf.OperatorRegistry, index: Index, queue: WorkQueue[RunKey], gaps: Gaps) -> None:
    for kind, (resource, _) in WATCHED.items():
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(_handler(kind, index, queue, gaps))


def _handler(kind: Kind, index: Index, queue: WorkQueue[RunKey], gaps: Gaps) -> Any:
    async def tell(event: Any, **_: Any) -> None:
        obj = event["object"]
        key = index.remove(kind, obj) if event["type"] == "DELETED" else index.put(kind, obj)
        if key is None:
            return
        if kind is Kind.JOB and event["type"] == "MODIFIED":
            gaps.told(key, obj)
        if kind is Kind.JOB and phase_of(obj).ended:
            # Its GPUs stand idle until the next Job is there; what else waits only wants to be told.
            queue.add_first(key)
        else:
            queue.add(key)

    tell.__name__ = f"tell_{kind.value.lower()}"
    return tell
