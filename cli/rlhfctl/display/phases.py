"""One glyph, one word and one colour for each phase."""

from __future__ import annotations

from rlhf_api.words import Phase

from .terminal import Terminal

GLYPH: dict[Phase, str] = {
    Phase.PENDING: "○",
    Phase.RUNNING: "●",
    Phase.SUSPENDED: "‖",
    Phase.PAUSED: "‖",
    Phase.SUCCEEDED: "✓",
    Phase.FAILED: "✗",
    Phase.CANCELLED: "⊘",
}
COLOUR: dict[Phase, str] = {
    Phase.PENDING: "dim",
    Phase.RUNNING: "blue",
    Phase.SUSPENDED: "yellow",
    Phase.PAUSED: "yellow",
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.CANCELLED: "yellow",
}


def words(phase: Phase) -> str:
    return f"{GLYPH[phase]} {phase.value}"


def painted(phase: Phase, out: Terminal) -> str:
    return out.paint(words(phase), COLOUR[phase])
