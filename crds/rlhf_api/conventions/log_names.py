"""What the log of one process of an attempt is called: in a state folder, in the store, and by rlhfctl."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlhf_api.words import StageName

#: Set for a stage whose log is to be kept in the store: the log's name without the index, which the pod knows by itself.
KEEP_LOG = "RLHF_KEEP_LOG"
_NAME = re.compile(rf"({'|'.join(StageName)})-(\d+)-(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class LogName:
    """`<stage>-<iteration>-<attempt>[-<index>]`."""

    stage: StageName
    """The stage that the attempt is booked on: for a resolve Job the one that it resolves."""
    iteration: int
    """0: of the run."""
    attempt: int
    index: int | None = None
    """The shard or node; None where one process does the whole stage."""

    def __str__(self) -> str:
        index = "" if self.index is None else f"-{self.index}"
        return f"{self.stage.value}-{self.iteration}-{self.attempt}{index}"

    @classmethod
    def parse(cls, text: str) -> LogName | None:
        """None: `text` is no such name."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        stage, iteration, attempt, index = found.groups()
        return cls(StageName(stage), int(iteration), int(attempt), None if index is None else int(index))
