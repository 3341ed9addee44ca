"""A manifest over a run that is there, as `kubectl apply` merges."""

from __future__ import annotations

from typing import Any

from rlhf_api import RLHFRun

from .watching import phase_of

#: What `approve`, `suspend` and `cancel` write.
SAID_LATER = frozenset({"approvals", "suspend", "cancel"})


def merged(run: RLHFRun, known: RLHFRun) -> RLHFRun:
    """`run` with what `approve`, `suspend` and `cancel` have written into `known`, where the manifest does not say.

    Of a run that has ended, only the approvals count: the new one goes by the same gates.
    """
    return with_said(run, known, frozenset({"approvals"}) if phase_of(known).finished else SAID_LATER)


def with_said(run: RLHFRun, known: RLHFRun, fields: frozenset[str]) -> RLHFRun:
    """`run` with those of `fields` from `known` that it does not say itself."""
    kept = {field: getattr(known.spec, field) for field in fields - run.spec.model_fields_set}
    return run.model_copy(update={"spec": run.spec.model_copy(update=kept)}) if kept else run


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 patch that makes `new` of `old`; empty where they are equal."""
    patch: dict[str, Any] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        patch[key] = merge_patch(before, after) if isinstance(before, dict) and isinstance(after, dict) else after
    return patch
