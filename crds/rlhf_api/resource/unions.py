"""Which fields of an object exclude or ask for each other: one table, read by the validator and, as CEL, by the CRD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlhf_api.base import Model

from .compute import EnvVar, Volume
from .data import HoldOut
from .evaluation import Gate
from .labeler import BradleyTerry, Labeler, LabelerType, LlmJudge, Pairwise, RewardHeldOut
from .labeler import Rule as LabelRule
from .model import ChatTemplate
from .sampling import IterateRef, IterateType
from .storage import StorageCredentials
from .training import Loss, LossType, Reference, ReferenceType, Replay, TrainData


@dataclass(frozen=True)
class Violation:
    """Fields are wire names. `field` None: the object as a whole."""

    field: str | None
    wrong: str
    right: str
    depends: tuple[str, ...]


@dataclass(frozen=True)
class CelRule:
    """An entry of x-kubernetes-validations at the object."""

    rule: str
    message: str
    field: str | None = None
    """Path below the object of the field that the message is about; absent: the object itself."""


@dataclass(frozen=True)
class Tagged:
    """A union: the tag's value asks for the member that it names, and for no other."""

    tag: str
    members: Mapping[str, str]
    """Member by the tag's value; values without an entry have no member."""

    def check(self, model: Model) -> Iterator[Violation]:
        given = _given(model)
        tag, chosen = wire_name(type(model), self.tag), str(getattr(model, self.tag))
        wanted = self.members.get(chosen)
        strays = [(value, member) for value, member in self.members.items() if member in given and value != chosen]
        for value, member in strays:
            name = wire_name(type(model), member)
            yield Violation(
                name, f"belongs to {tag} {value}, and {tag} is {chosen}", f"remove {name}, or write {tag}: {value}", (tag, name)
            )
        if wanted is not None and wanted not in given:
            name = wire_name(type(model), wanted)
            yield Violation(
                name,
                f"required with {tag} {chosen}, and absent",
                f"give {name}" + (f", or write {tag}: {strays[0][0]}" if strays else ""),
                (tag, name),
            )

    def cel(self, model: type[Model]) -> Iterator[CelRule]:
        tag = wire_name(model, self.tag)
        for value, member in self.members.items():
            name = wire_name(model, member)
            message = f"{name} is required with {tag} {value}, and belongs to no other"
            yield CelRule(f"({_tag(model, self.tag)} == '{value}') == has(self.{name})", message, name)


@dataclass(frozen=True)
class Alternatives:
    """Of some fields at least `least` and at most `most` are given."""

    fields: tuple[str, ...]
    least: int
    most: int

    def check(self, model: Model) -> Iterator[Violation]:
        names = self._names(type(model))
        given = [wire_name(type(model), field) for field in self.fields if field in _given(model)]
        if not self.least <= len(given) <= self.most:
            yield Violation(
                None, f"has {_listed(given, 'and') or 'none of ' + _listed(names, 'and')}", f"give {self._wanted(names)}", names
            )

    def cel(self, model: type[Model]) -> Iterator[CelRule]:
        names = self._names(model)
        count = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
        if self.least == self.most:
            rule = f"{count} == {self.least}"
        elif self.least == 0:
            rule = f"{count} <= {self.most}"
        else:
            rule = f"{count} >= {self.least}"
        yield CelRule(rule, f"give {self._wanted(names)}")

    def _names(self, model: type[Model]) -> tuple[str, ...]:
        return tuple(wire_name(model, field) for field in self.fields)

    def _wanted(self, names: tuple[str, ...]) -> str:
        if self.least == self.most:
            return f"exactly one of {_listed(names, 'and')}"
        return f"at {'most' if self.least == 0 else 'least'} one of {_listed(names, 'and')}"


@dataclass(frozen=True)
class OnlyWith:
    """A field that has a meaning only with some values of the tag, and is never required."""

    field: str
    tag: str
    values: tuple[str, ...]

    def check(self, model: Model) -> Iterator[Violation]:
        chosen = str(getattr(model, self.tag))
        if self.field in _given(model) and chosen not in self.values:
            name, tag = wire_name(type(model), self.field), wire_name(type(model), self.tag)
            values = _listed(self.values, "or")
            yield Violation(
                name, f"belongs to {tag} {values}, and {tag} is {chosen}", f"remove {name}, or write {tag}: {values}", (tag, name)
            )

    def cel(self, model: type[Model]) -> Iterator[CelRule]:
        name, tag = wire_name(model, self.field), wire_name(model, self.tag)
        values = ", ".join(f"'{value}'" for value in self.values)
        yield CelRule(
            f"!has(self.{name}) || {_tag(model, self.tag)} in [{values}]",
            f"{name} belongs to {tag} {_listed(self.values, 'or')}; remove it, or change {tag}",
            name,
        )


Rule = Tagged | Alternatives | OnlyWith


def _exactly_one(*fields: str) -> Alternatives:
    return Alternatives(fields, 1, 1)


UNIONS: Mapping[type[Model], tuple[Rule, ...]] = {
    Labeler: (
        Tagged(
            "type",
            {
                LabelerType.BRADLEY_TERRY: "bradley_terry",
                LabelerType.PAIRWISE: "pairwise",
                LabelerType.MULTI_OBJECTIVE: "multi_objective",
                LabelerType.RULE: "rule",
                LabelerType.JUDGE: "judge",
                LabelerType.HUMAN: "human",
            },
        ),
    ),
    BradleyTerry: (_exactly_one("model", "train"),),
    Pairwise: (_exactly_one("model", "train"),),
    RewardHeldOut: (_exactly_one("fraction", "size", "data"),),
    LabelRule: (_exactly_one("entry_point", "regex", "exact_match", "numeric_answer", "json_schema"),),
    LlmJudge: (_exactly_one("model", "endpoint"),),
    ChatTemplate: (
        Alternatives(("name", "inline", "config_map_key_ref"), 0, 1),
        Alternatives(("name", "inline", "config_map_key_ref", "date"), 1, 4),
    ),
    StorageCredentials: (Alternatives(("secret_ref", "service_account_name"), 0, 1),),
    HoldOut: (Alternatives(("size", "fraction"), 0, 1), Alternatives(("size", "fraction", "source"), 1, 3)),
    Volume: (_exactly_one("persistent_volume_claim", "empty_dir", "config_map"),),
    EnvVar: (_exactly_one("value", "value_from"),),
    Gate: (
        _exactly_one("metric", "benchmark"),
        _exactly_one("min", "max", "plateau", "max_drop"),
        Alternatives(("metric", "max_drop"), 0, 1),
    ),
    IterateRef: (Tagged("type", {IterateType.NUMBER: "iteration"}),),
    Reference: (Tagged("type", {ReferenceType.MODEL: "model"}),),
    TrainData: (Tagged("replay", {Replay.WINDOW: "window"}),),
    Loss: (
        OnlyWith("average", "type", (LossType.IPO,)),
        OnlyWith("gamma", "type", (LossType.SIMPO,)),
        OnlyWith("length_normalized", "type", (LossType.SIGMOID,)),
        OnlyWith("length_margin", "type", (LossType.SIGMOID,)),
        OnlyWith("label_smoothing", "type", (LossType.CDPO, LossType.ROBUST)),
    ),
}


def wire_name(model: type[Model], field: str) -> str:
    """A field's name in manifests."""
    return model.model_fields[field].alias or field


def _tag(model: type[Model], tag: str) -> str:
    """The tag's value in CEL. The API server also checks an object's default, `{}`, before it fills in the tag's own."""
    name, field = wire_name(model, tag), model.model_fields[tag]
    return f"self.{name}" if field.is_required() else f"(has(self.{name}) ? self.{name} : '{field.default}')"


def _given(model: Model) -> set[str]:
    return {name for name in type(model).model_fields if getattr(model, name) is not None}


def _listed(words: tuple[str, ...] | list[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
