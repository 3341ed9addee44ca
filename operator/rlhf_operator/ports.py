"""What a backend implements, so that the one core drives a cluster and a laptop alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_operator.core.actions import Action
from rlhf_operator.core.observed import Observed


class Clock(Protocol):
    def now(self) -> datetime:
        """With a time zone."""
        ...


@dataclass(frozen=True)
class Seen:
    """A run and its children. The run is read first: children may be newer than its status, never older when `observed.live`."""

    run: RLHFRun
    observed: Observed


class Backend(Protocol):
    """One run's world. The contract suite (tests/support/backend_contract.py) holds every implementation to these words."""

    def observe(self, *, live: bool) -> Seen | None:
        """None: the run is gone. Without `live` an index that may lag behind is good enough; with it, what is absent is absent."""
        ...

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        """Write it if the run is still the one that was seen (uid and resourceVersion); False if somebody wrote in between."""
        ...

    def apply(self, run: RLHFRun, action: Action) -> bool:
        """Carry out one action, idempotently; False: not now (refused, or an object of that name is in the way). A refusal that a
        person should know of is in the next observation's `refusals`.
        """
        ...
