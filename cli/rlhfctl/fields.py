"""The fields of the API as a tree that one can walk by name: `spec.train.loss.beta`. For `explain` and its suggestions."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rlhf_api import RLHFRun
from rlhf_api.base import Model

from .errors import NotFound
from .suggest import did_you_mean, hint_for


@dataclass(frozen=True)
class Field:
    """One field: `path` as a person writes it, `type_name` in words, `model` where it has fields of its own."""

    path: str
    name: str
    type_name: str
    required: bool
    default: str | None
    description: str
    limits: tuple[str, ...]
    model: type[BaseModel] | None
    enum: type[StrEnum] | None

    def children(self) -> list[Field]:
        return list(children_of(self.model, self.path)) if self.model else []


def find(path: str) -> Field:
    """The field at `path`; a path without `spec.` or `status.` in front means the spec.

    Raises:
        NotFound: with the nearest name there is.
    """
    parts = [part.split("[")[0] for part in path.strip().strip(".").split(".") if part]
    if parts and parts[0].lower() == "rlhfrun":
        parts = parts[1:]
    top = {field.name: field for field in children_of(RLHFRun, "")}
    if parts and parts[0] not in top:
        parts = ["spec", *parts]
    here: Field = _root()
    for part in parts:
        choices = {field.name: field for field in here.children()}
        if part not in choices:
            known = ", ".join(choices) or "none: it is a plain value"
            raise NotFound(
                f"{here.path or 'RLHFRun'} has no field {part!r}",
                why=f"its fields are {known}",
                hints=hint_for(part, choices) or _elsewhere(part) or (f"rlhfctl explain {here.path}".rstrip(),),
            )
        here = choices[part]
    return here


def children_of(model: type[BaseModel], prefix: str) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        wire = info.alias or name
        yield _field(f"{prefix}.{wire}" if prefix else wire, wire, info)


def every_path() -> Iterator[str]:
    """All paths of the spec, for suggestions and completion."""
    waiting = [field for field in _root().children() if field.name == "spec"]
    while waiting:
        field = waiting.pop(0)
        yield field.path
        waiting.extend(field.children())


def _root() -> Field:
    return Field("", "RLHFRun", "object", True, None, _doc(RLHFRun), (), RLHFRun, None)


def _elsewhere(name: str) -> tuple[str, ...]:
    """Where else in the spec a field of this name, or of one like it, lies."""
    paths = list(every_path())
    near = did_you_mean(name, {path.rsplit(".", 1)[-1] for path in paths})
    found = [path for path in paths if path.rsplit(".", 1)[-1] == near]
    return tuple(f"rlhfctl explain {path.removeprefix('spec.')}" for path in found[:3])


def _field(path: str, name: str, info: FieldInfo) -> Field:
    shape = _shape(info.annotation)
    limits = [text for text in (_limit(item) for item in (*info.metadata, *shape.metadata)) if text]
    description = info.description or ""
    if not description and shape.model:
        description = _doc(shape.model)
    required = info.is_required()
    return Field(path, name, shape.text, required, None if required else _default(info), description, tuple(limits), shape.model, shape.enum)


@dataclass(frozen=True)
class _Shape:
    text: str
    model: type[BaseModel] | None = None
    enum: type[StrEnum] | None = None
    metadata: tuple[Any, ...] = ()


_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "any", object: "any"}


def _shape(annotation: Any) -> _Shape:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = _shape(args[0])
        return _Shape(inner.text, inner.model, inner.enum, (*args[1:], *inner.metadata))
    if origin in (Union, types.UnionType):
        parts = [_shape(arg) for arg in args if arg is not type(None)]
        return parts[0] if len(parts) == 1 else _Shape(" or ".join(dict.fromkeys(part.text for part in parts)))
    if origin is list:
        inner = _shape(args[0])
        return _Shape(f"list of {inner.text}", inner.model, inner.enum)
    if origin is dict:
        return _Shape(f"map of string to {_shape(args[1]).text}")
    if origin is Literal:
        return _Shape("string: " + ", ".join(str(arg) for arg in args))
    if inspect.isclass(annotation) and issubclass(annotation, StrEnum):
        return _Shape("enum", enum=annotation)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return _Shape("object", model=annotation)
    return _Shape(_WORDS.get(annotation, getattr(annotation, "__name__", "any")))


def _limit(item: Any) -> str:
    """A constraint of pydantic or annotated_types, in words; empty for what a reader of the manifest need not know."""
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤", "pattern": "matches"}
    texts = []
    for attribute, word in words.items():
        value = getattr(item, attribute, None)
        if value is None or (attribute == "le" and value in (2**31 - 1, 1e12)):
            continue
        texts.append(f"{word} {value}")
    metadata = getattr(item, "metadata", None)
    if isinstance(metadata, list):
        texts += [text for text in map(_limit, metadata) if text]
    return ", ".join(texts)


def _default(info: FieldInfo) -> str | None:
    import json

    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or (isinstance(value, list | dict) and not value):
        return None
    if isinstance(value, Model):
        wire = value.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return json.dumps(wire) if wire else None
    if isinstance(value, list):
        return json.dumps([item.model_dump(mode="json", by_alias=True, exclude_defaults=True) if isinstance(item, Model) else item for item in value])
    return str(value).lower() if isinstance(value, bool) else str(value)


def _doc(model: type[BaseModel]) -> str:
    # A model without a docstring inherits its base's, which says nothing of it.
    text = model.__dict__.get("__doc__")
    return inspect.cleandoc(text) if text else ""
