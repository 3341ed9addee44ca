"""What of a spec may change while its run works; everything else is refused, here and by the CRD's rules."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.changes import CHANGEABLE
from rlhf_api.resource.run import RLHFRunSpec


def immutable_changes(old: RLHFRunSpec, new: RLHFRunSpec) -> list[str]:
    """Paths of what changed and may not: sorted, with `spec.` before them."""
    refused = {path for path in _changed(old.to_wire(), new.to_wire(), "") if path not in CHANGEABLE}
    if new.iterations < old.iterations:
        refused.add("iterations")
    if old.cancel and not new.cancel:
        refused.add("cancel")
    if new.approvals[: len(old.approvals)] != old.approvals:
        refused.add("approvals")
    if new.annotations[: len(old.annotations)] != old.annotations:
        refused.add("annotations")
    return sorted(f"spec.{path}" for path in refused)


#: What is said of a run while it exists: by `approve`, `annotations import`, `suspend` and `cancel`, and seldom by its manifest.
_SAID_LATER = frozenset({"approvals", "annotations", "suspend", "cancel"})


def with_said_later(new: RLHFRunSpec, old: RLHFRunSpec, *, ended: bool) -> RLHFRunSpec:
    """`new` with what was said later in `old` and `new` does not say. Of a run that has ended only the approvals count: the next
    one goes by the same gates.
    """
    fields = (frozenset({"approvals"}) if ended else _SAID_LATER) - new.model_fields_set
    return new.model_copy(update={field: getattr(old, field) for field in fields}) if fields else new


def _changed(old: Any, new: Any, path: str) -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        prefix = f"{path}." if path else ""
        return set().union(*(_changed(old.get(key), new.get(key), prefix + key) for key in old.keys() | new.keys()))
    # A whole queue may come or go only with the one field of it that may change.
    if path == "queue" and {*(old or {}), *(new or {})} <= {"priorityClass"}:
        return set()
    return set() if old == new else {path}
