"""What a process holds for itself alone: its own module, for a process that is spawned imports the function that it runs."""

from __future__ import annotations

from pathlib import Path

from rlhf_trainer.data.examples import Examples


def growth_by_examples(file: str, tokens: int) -> int:
    """Bytes that this process alone holds more once it has read every example of `file`; `small.arrow` beside it comes first."""
    assert len(list(Examples(Path(file).with_name("small.arrow")))) == 1, "all is imported now"
    before = _anonymous()
    found = Examples(Path(file))
    assert sum(example.tokens for example in found) == tokens
    return _anonymous() - before


def _anonymous() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous"))
