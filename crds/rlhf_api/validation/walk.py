"""Every object of a parsed manifest, with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from rlhf_api.base import Model
from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.compute import Pod
from rlhf_api.resource.run import RLHFRunSpec

M = TypeVar("M", bound=Model)
SPEC: Loc = ("spec",)


def models(value: Any, loc: Loc) -> Iterator[tuple[Loc, Model]]:
    """The object itself and all below it, outer before inner."""
    if isinstance(value, Model):
        yield loc, value
        for name, field in type(value).model_fields.items():
            yield from models(getattr(value, name), (*loc, field.alias or name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from models(item, (*loc, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from models(item, (*loc, str(key)))


def all_of(spec: RLHFRunSpec, kind: type[M]) -> Iterator[tuple[Loc, M]]:
    """Every object of one kind in a spec."""
    return ((loc, model) for loc, model in models(spec, SPEC) if isinstance(model, kind))


def pods(spec: RLHFRunSpec) -> Iterator[tuple[Loc, Pod]]:
    """The pod of every stage that shapes one, and podDefaults."""
    return all_of(spec, Pod)
