"""What of a spec may change while its run works. The CRD's rules and the core read this."""

from __future__ import annotations

#: Paths in spec. cancel goes one way, approvals and annotations are appended, iterations go up.
CHANGEABLE = frozenset(
    {
        "suspend",
        "cancel",
        "approvals",
        "annotations",
        "iterations",
        "activeDeadlineSeconds",
        "pendingDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "queue.priorityClass",
    }
)
