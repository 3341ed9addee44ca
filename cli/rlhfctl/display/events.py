"""An Event of a cluster as two lines."""

from __future__ import annotations

from rlhf_api.words import KIND
from rlhfctl import figures
from rlhfctl.sources.cluster.objects import EventView

from .terminal import Terminal


def print_event(event: EventView, out: Terminal) -> None:
    """When, why and about what; below it the message."""
    kind = "run" if event.kind == KIND else event.kind.lower()
    times = f" ({event.count} times)" if event.count > 1 else ""
    mark = out.paint("! ", "yellow") if event.type == "Warning" else "  "
    about = f"{kind}/{event.name}" if kind != "run" else "run"
    out.line(f"{mark}{figures.stamp(event.time)} {out.paint(event.reason, 'bold')}{times} {out.paint(about, 'dim')}")
    out.wrapped(event.message or "-", "    ")
