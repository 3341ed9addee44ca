"""The rules of the CRD in CEL: what the API server itself refuses, whoever writes the object.

Only what needs no other object and little time: the name, unions, what may not change, what a pod must not carry, what must fit
together (cel_fit.py). The rest is `rlhf_api.validation`, which rlhfctl runs before it submits, and the operator when it sees the
object.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlhf_api.base import SOURCE_URI, STORE_URL, Model
from rlhf_api.resource.changes import CHANGEABLE
from rlhf_api.resource.compute import RESERVED_ENV_PREFIXES, EnvVar, Pod, Queue, Volume, VolumeMount
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.unions import UNIONS, CelRule, wire_name
from rlhf_api.validation.rules.pods import RESERVED_KEY_PREFIXES, RESERVED_KEYS, RESERVED_MOUNTS, RESERVED_VOLUME_PREFIX

from .cel_fit import FITTING

_NAME = CelRule(
    "self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "the name must be an RFC 1035 label: at most 63 small letters, digits and -, a letter first and no - at the end",
    "metadata.name",
)


_BUCKET = "[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]"
_TEXTS = {
    SOURCE_URI: CelRule(
        f"self.matches('^(hf://[^/]+/[^/]+|s3://{_BUCKET}(/.*)?|file:///.*)$')",
        "write hf://owner/name, s3://bucket/path or file:///folder (three slashes)",
    ),
    STORE_URL: CelRule(
        f"self.matches('^s3://{_BUCKET}(/.*[^/])?$')",
        "write s3://bucket/prefix, without / at the end; a folder is no store, for pods on other nodes do not see it",
    ),
}


def root_rules() -> list[CelRule]:
    """Of the object as a whole."""
    return [_NAME]


def rules_of(model: type[Model]) -> list[CelRule]:
    """Of every object of this kind, wherever it stands."""
    rules = [rule for union in UNIONS.get(model, ()) for rule in union.cel(model)]
    rules += [*_OWN.get(model, []), *FITTING.get(model, [])]
    return [*rules, *_immutable()] if model is RLHFRunSpec else rules


def text_rule(pattern: str) -> CelRule | None:
    """Instead of a pattern, where people go wrong: the API server answers to a pattern with nothing but the pattern."""
    return _TEXTS.get(pattern)


def _immutable() -> Iterator[CelRule]:
    """Compared field by field, with has() on both sides: a rule on an optional field itself never sees it come or go."""
    for name in _wire_names(RLHFRunSpec):
        if name not in CHANGEABLE and name != "queue":
            same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
            yield CelRule(same, f"{name} cannot change while the run exists; submit another run", name)
    for name in _wire_names(Queue):
        if f"queue.{name}" not in CHANGEABLE:
            new, old = (f"(has({of}.queue) && has({of}.queue.{name}) ? {of}.queue.{name} : '')" for of in ("self", "oldSelf"))
            message = f"queue.{name} cannot change while the run exists; submit another run"
            yield CelRule(f"{new} == {old}", message, f"queue.{name}")
    yield CelRule(
        "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
        "cancel goes one way; submit another run: it goes on from what this one has sealed",
        "cancel",
    )
    yield CelRule(
        "!has(oldSelf.iterations) || (has(self.iterations) && self.iterations >= oldSelf.iterations)",
        "iterations can only be raised",
        "iterations",
    )
    yield CelRule(
        "!has(oldSelf.approvals) || size(oldSelf.approvals) == 0 || (has(self.approvals) && oldSelf.approvals.all(old, "
        "self.approvals.exists(new, new.gate == old.gate && new.iteration == old.iteration)))",
        "approvals can only be added",
        "approvals",
    )
    yield CelRule(
        "!has(oldSelf.annotations) || size(oldSelf.annotations) == 0 || (has(self.annotations) && oldSelf.annotations.all(old, "
        "self.annotations.exists(new, new.iteration == old.iteration && new.digest == old.digest)))",
        "annotations can only be added",
        "annotations",
    )


def _wire_names(model: type[Model]) -> list[str]:
    return [wire_name(model, name) for name in model.model_fields]


def _any(text: str, prefixes: tuple[str, ...]) -> str:
    return " || ".join(f"{text}.startsWith('{prefix}')" for prefix in prefixes)


def _free_keys(field: str) -> CelRule:
    taken = _any("key", RESERVED_KEY_PREFIXES) + "".join(f" || key == '{key}'" for key in RESERVED_KEYS)
    message = "a key is reserved, as rlhf.dev/… and app.kubernetes.io/… are; use a domain of your own before the slash"
    return CelRule(f"!has(self.{field}) || self.{field}.all(key, !({taken}))", message, field)


_OWN: dict[type[Model], list[CelRule]] = {
    EnvVar: [
        CelRule(
            f"!({_any('self.name', RESERVED_ENV_PREFIXES)})",
            f"reserved, as all that begin with {', '.join(RESERVED_ENV_PREFIXES)}; S3 credentials go into storage.credentials",
            "name",
        )
    ],
    Pod: [_free_keys("labels"), _free_keys("annotations")],
    Volume: [CelRule(f"!self.name.startsWith('{RESERVED_VOLUME_PREFIX}')", "the operator's own volumes have such names", "name")],
    VolumeMount: [
        CelRule(
            " && ".join(f"self.mountPath != '{path}' && !self.mountPath.startsWith('{path}/')" for path in RESERVED_MOUNTS),
            "something else is mounted here; mount it elsewhere",
            "mountPath",
        ),
        CelRule(
            "!has(self.subPath) || !self.subPath.matches('^/|(^|/)[.][.](/|$)')",
            "leads out of the volume; write a path inside it, without ..",
            "subPath",
        ),
    ],
}
