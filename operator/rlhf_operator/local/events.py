"""What a local run tells its listener while it works: for the live display and for plain lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rlhf_api.words import StageName


class LocalEventKind(StrEnum):
    RUN = "Run"
    """The run's phase changed; the message says to what and why."""
    STARTED = "Started"
    """An attempt of a stage started."""
    PROGRESS = "Progress"
    """At most once a second, while a stage works; only here `progress` is given."""
    SUCCEEDED = "Succeeded"
    ADOPTED = "Adopted"
    """The stage's artifact existed: nothing was computed."""
    RETRYING = "Retrying"
    """An attempt ended without success; another follows."""
    FAILED = "Failed"
    """The stage failed for good, and the run with it."""
    GATE = "Gate"
    """A gate tripped."""
    WARNING = "Warning"
    """A stage ended well and warns."""


@dataclass(frozen=True)
class Progress:
    """Of one attempt, summed over its shards. Rates and time left are the display's: differences of two of these."""

    done: float
    total: float | None
    """None while a shard has not said."""
    unit: str
    detail: str = ""
    shards_done: int = 0
    shards: int = 1


@dataclass(frozen=True)
class LocalEvent:
    time: datetime
    kind: LocalEventKind
    message: str
    """A whole sentence, which names iteration, stage and attempt itself."""
    iteration: int | None = None
    """None for the stages of the run, and for the run."""
    stage: StageName | None = None
    attempt: int | None = None
    progress: Progress | None = None
