"""`rlhfctl explain`: the schema's own documentation, a field at a time."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import click

from rlhfctl import terminal

if TYPE_CHECKING:
    from rlhf_api.metrics import Metric
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
    metric = next((metric for metric in Metric if metric.value == field), None)
    if metric is not None:
        _print_metric(metric, out)
        return
    from rlhfctl.fields import find

    _print_field(find(field), out)


def _print_field(field: Field, out: Terminal) -> None:
    limits = f"  ({'; '.join(field.limits)})" if field.limits else ""
    _labelled("FIELD", field.path or "RLHFRun", out)
    _labelled("TYPE", field.type_name + limits, out)
    if field.path:
        _labelled("PRESENT", "required" if field.required else f"default {field.default}" if field.default else "optional", out)
    if field.description:
        out.line()
        _paragraph(field.description, out, "  ")
    if field.values:
        out.line()
        out.line(out.paint("VALUES", "bold"))
        _paragraph(", ".join(field.values), out, "  ")
    children = field.children()
    if children:
        out.line()
        out.line(out.paint("FIELDS", "bold"))
    for child in children:
        mark = out.paint(" (required)", "yellow") if child.required else ""
        default = f" = {child.default}" if child.default and len(child.default) <= 40 else ""
        out.line(f"  {out.paint(child.name, 'cyan')}  <{child.type_name}>{default}{mark}")
        _paragraph(child.description, out, "      ")


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
