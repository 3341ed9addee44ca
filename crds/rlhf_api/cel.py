"""The rules of the CRD in CEL: what the API server itself refuses, whoever writes the object.

Only what needs no other object and little time: the name, unions, what may not change, what a pod must not carry. The rest is
`rlhf_api.validation`, which rlhfctl runs before it submits, and the operator when it sees the object.
"""

from __future__ import annotations

from collections.abc import Iterator

from .base import Model
from .changes import CHANGEABLE
from .compute import RESERVED_ENV_PREFIXES, EnvVar, Pod, Queue, VolumeMount
from .run import RLHFRunSpec
from .storage import Storage
from .unions import UNIONS, CelRule, wire_name
from .validation.pods import RESERVED_KEY_PREFIXES, RESERVED_KEYS, RESERVED_MOUNTS

_NAME = CelRule(
    "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "the name must be an RFC 1035 label: at most 63 small letters, digits and -, a letter first and no - at the end",
)


def root_rules() -> list[CelRule]:
    """Of the object as a whole."""
    return [_NAME]


def rules_of(model: type[Model]) -> list[CelRule]:
    """Of every object of this kind, wherever it stands."""
    rules = [rule for union in UNIONS.get(model, ()) for rule in union.cel(model)]
    rules += _OWN.get(model, [])
    return [*rules, *_immutable()] if model is RLHFRunSpec else rules


def _immutable() -> Iterator[CelRule]:
    """Compared field by field, with has() on both sides: a rule on an optional field itself never sees it come or go."""
    for name in _wire_names(RLHFRunSpec):
        if name not in CHANGEABLE and name != "queue":
            same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
            yield CelRule(same, f"{name} cannot change while the run exists; submit another run")
    for name in _wire_names(Queue):
        if f"queue.{name}" not in CHANGEABLE:
            new, old = (f"(has({of}.queue) && has({of}.queue.{name}) ? {of}.queue.{name} : '')" for of in ("self", "oldSelf"))
            yield CelRule(f"{new} == {old}", f"queue.{name} cannot change while the run exists; submit another run")
    yield CelRule(
        "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
        "cancel goes one way; submit another run: it goes on from what this one has sealed",
    )
    yield CelRule(
        "!has(oldSelf.iterations) || (has(self.iterations) && self.iterations >= oldSelf.iterations)",
        "iterations can only be raised",
    )
    yield CelRule(
        "!has(oldSelf.approvals) || size(oldSelf.approvals) == 0 || (has(self.approvals) && oldSelf.approvals.all(old, "
        "self.approvals.exists(new, new.gate == old.gate && new.iteration == old.iteration)))",
        "approvals can only be added",
    )


def _wire_names(model: type[Model]) -> list[str]:
    return [wire_name(model, name) for name in model.model_fields]


def _any(text: str, prefixes: tuple[str, ...]) -> str:
    return " || ".join(f"{text}.startsWith('{prefix}')" for prefix in prefixes)


def _free_keys(field: str) -> CelRule:
    taken = _any("key", RESERVED_KEY_PREFIXES) + "".join(f" || key == '{key}'" for key in RESERVED_KEYS)
    return CelRule(f"!has(self.{field}) || self.{field}.all(key, !({taken}))", f"{field} has a key that is reserved")


_OWN: dict[type[Model], list[CelRule]] = {
    Storage: [CelRule("self.url.startsWith('s3://')", "url must be s3://bucket/prefix: pods on other nodes do not see a folder")],
    EnvVar: [CelRule(f"!({_any('self.name', RESERVED_ENV_PREFIXES)})", "the variable is reserved")],
    Pod: [_free_keys("labels"), _free_keys("annotations")],
    VolumeMount: [
        CelRule(
            " && ".join(f"self.mountPath != '{path}' && !self.mountPath.startsWith('{path}/')" for path in RESERVED_MOUNTS),
            "mountPath is reserved",
        ),
        CelRule("!has(self.subPath) || !self.subPath.contains('..')", "subPath must not leave the volume"),
    ],
}
