"""What goes wrong in the simulated world, read from a tape of numbers; and how its processes end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

T = TypeVar("T")


class Crash(Exception):  # noqa: N818 - an event of the simulation
    """The operator dies here."""


@dataclass
class Tape:
    """A source of choices; exhausted, it chooses the first option, which is the harmless one."""

    numbers: list[int] = field(default_factory=list)

    def choose(self, *options: T) -> T:
        return options[self.numbers.pop(0) % len(options)] if self.numbers else options[0]

    def happens(self, one_in: int) -> bool:
        return bool(self.numbers) and self.numbers.pop(0) % one_in == one_in - 1


@dataclass
class Clock:
    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


#: How a process ends: exit code, and what is special about it.
@dataclass(frozen=True)
class End:
    exit_code: int | None
    reason: str | None = None
    disrupted: bool = False
    speaks: bool = True
    """It leaves a result that can be read."""
    seals: bool = False
    """It had sealed its artifact when it ended."""


DONE = End(0, seals=True)
DONE_AND_LOST = End(0, speaks=False, seals=True)
SEALED_AND_KILLED = End(137, speaks=False, seals=True)
FAILURES = (
    End(137, speaks=False),
    End(137, reason="OOMKilled", speaks=False),
    End(143),
    End(143, disrupted=True, speaks=False),
    End(75),
    End(1),
    End(1, reason="Evicted", speaks=False),
    End(None, speaks=False),
)
#: What may become of a Job that is being deleted, in one step.
VANISHING = ("go", "wait", "seal", "fail")
