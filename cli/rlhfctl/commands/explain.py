"""`rlhfctl explain`: the schema's own documentation, a field at a time."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from rlhfctl import terminal

if TYPE_CHECKING:
    from rlhfctl.fields import Field
    from rlhfctl.terminal import Terminal


@click.command("explain")
@click.argument("field", default="", metavar="[FIELD]")
def command(field: str) -> None:
    """Document a field of the manifest.

    FIELD is a path such as train.loss.beta, with or without spec. in front; without FIELD: the whole RLHFRun. A metric's
    name (klToInitial) is explained too.
    """
    from rlhf_api.metrics import Metric

    out = terminal.stdout()
    if field in {metric.value for metric in Metric}:
        _print_metric(Metric(field), out)
        return
    from rlhfctl.fields import find

    _print_field(find(field), out)


def _print_field(field: Field, out: Terminal) -> None:
    out.line(f"{out.paint('FIELD', 'bold')}    {field.path or 'RLHFRun'}")
    limits = f"  ({'; '.join(field.limits)})" if field.limits else ""
    out.line(f"{out.paint('TYPE', 'bold')}     {field.type_name}{limits}")
    if field.path:
        need = "required" if field.required else f"default {field.default}" if field.default is not None else "optional"
        for label, line in zip(("PRESENT", *[""] * 99), textwrap.wrap(need, 70), strict=False):
            out.line(f"{out.paint(label, 'bold')}{' ' * (9 - len(label))}{line}")
    if field.description:
        out.line()
        _paragraph(field.description, out, "  ")
    if field.enum is not None:
        out.line()
        out.line(out.paint("VALUES", "bold"))
        _print_values(field, out)
    children = field.children()
    if children:
        out.line()
        out.line(out.paint("FIELDS", "bold"))
        for child in children:
            mark = out.paint(" (required)", "yellow") if child.required else ""
            short = child.default is not None and child.model is None and len(child.default) <= 40
            default = f" = {child.default}" if short else ""
            out.line(f"  {out.paint(child.name, 'cyan')}  <{child.type_name}>{default}{mark}")
            _paragraph(child.description, out, "      ")


def _print_values(field: Field, out: Terminal) -> None:
    assert field.enum is not None
    values = list(field.enum)
    if any(hasattr(value, "definition") for value in values):
        for value in values:
            out.line(f"  {out.paint(str(value.value), 'cyan')}")
        return
    _paragraph(", ".join(str(value.value) for value in values), out, "  ")


def _print_metric(metric: object, out: Terminal) -> None:
    out.line(f"{out.paint('METRIC', 'bold')}   {metric}")
    out.line(f"{out.paint('UNIT', 'bold')}     {getattr(metric, 'unit', '')}")
    out.line()
    _paragraph(str(getattr(metric, "definition", "")), out, "  ")


def _paragraph(text: str, out: Terminal, indent: str) -> None:
    for block in text.split("\n\n"):
        for line in textwrap.wrap(" ".join(block.split()), 78 - len(indent)):
            out.line(indent + line)
