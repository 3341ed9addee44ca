"""`rlhfctl explain`: the schema's own documentation, a field at a time."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from rlhfctl.display import terminal

if TYPE_CHECKING:
    from rlhf_api.explain import FieldDoc
    from rlhf_api.metrics import Metric
    from rlhfctl.display.terminal import Terminal


@click.command("explain")
@click.argument("field", default="", metavar="[FIELD]")
def command(field: str) -> None:
    """Document a field of the manifest.

    FIELD is a path such as train.loss.beta, with or without spec. in front; without FIELD: the whole RLHFRun. A metric's
    name (klToInitial) is explained too.
    """
    from rlhf_api.metrics import Metric

    out = terminal.stdout()
    metric = next((metric for metric in Metric if metric.value == field), None)
    if metric is not None:
        _print_metric(metric, out)
        return
    _print_field(_found(field), out)


def _found(path: str) -> FieldDoc:
    """The field, or NotFound with the nearest ones there are."""
    from rlhf_api.explain import UnknownFieldError, describe
    from rlhfctl.errors import NotFound

    try:
        return describe(path)
    except UnknownFieldError as error:
        why = f"its fields are {', '.join(error.known)}" if error.known else "it is a plain value"
        nearest = error.suggestions[:3] or (error.parent,)
        hints = tuple(f"rlhfctl explain {name.removeprefix('spec.')}".rstrip() for name in nearest)
        raise NotFound(f"{error.parent or 'RLHFRun'} has no field {path.rsplit('.', 1)[-1]!r}", why=why, hints=hints) from error


def _print_field(field: FieldDoc, out: Terminal) -> None:
    limits = f"  ({'; '.join(field.constraints)})" if field.constraints else ""
    _labelled("FIELD", field.path or "RLHFRun", out)
    _labelled("TYPE", field.type + limits, out)
    if field.path:
        default = _default(field)
        _labelled("PRESENT", "required" if field.required else f"default {default}" if default else "optional", out)
    if field.description:
        out.line()
        _paragraph(field.description, out, "  ")
    if field.values:
        out.line()
        out.line(out.paint("VALUES", "bold"))
        _print_values(field, out)
    if field.children:
        out.line()
        out.line(out.paint("FIELDS", "bold"))
    for child in field.children:
        mark = out.paint(" (required)", "yellow") if child.required else ""
        default = _default(child)
        short = f" = {default}" if default and len(default) <= 40 else ""
        out.line(f"  {out.paint(child.name, 'cyan')}  <{_type(child)}>{short}{mark}")
        _paragraph(child.description, out, "      ")


def _type(field: FieldDoc) -> str:
    """With the values themselves, where they are few."""
    words = " | ".join(field.values)
    return words if words and len(words) <= 56 else field.type


def _print_values(field: FieldDoc, out: Terminal) -> None:
    if not field.value_docs:
        _paragraph(", ".join(field.values), out, "  ")
    for value, text in field.value_docs:
        out.line(f"  {out.paint(value, 'cyan')}")
        _paragraph(text, out, "      ")


def _default(field: FieldDoc) -> str:
    """As a manifest writes it; empty where absent says as much."""
    import json

    if field.default in (None, {}, []):
        return ""
    return field.default if isinstance(field.default, str) else json.dumps(field.default, ensure_ascii=False)


def _labelled(label: str, text: str, out: Terminal) -> None:
    out.wrapped(text, label.ljust(9), "bold")


def _print_metric(metric: Metric, out: Terminal) -> None:
    _labelled("METRIC", metric.value, out)
    _labelled("UNIT", metric.unit, out)
    out.line()
    _paragraph(metric.definition, out, "  ")


def _paragraph(text: str, out: Terminal, indent: str) -> None:
    for block in text.split("\n\n"):
        for line in textwrap.wrap(" ".join(block.split()), 78 - len(indent)):
            out.line(indent + line)
