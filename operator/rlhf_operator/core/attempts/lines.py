"""Jobs that nothing of their kind starts beside: those of the chain, and those of each stage beside it (ADR 0028)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.words import StageName
from rlhf_operator.core.actions import Action
from rlhf_operator.core.cursor import stages_of, unfinished_stages
from rlhf_operator.core.observed import Job

from .letting_go import deletions, patience


@dataclass(frozen=True)
class Line:
    """A stage that is not over, or None; and every Job that was made for it or, in the chain, for the stages before it."""

    iteration: int | None
    stage: StageStatus | None
    jobs: tuple[Job, ...] = ()

    @property
    def former(self) -> list[Job]:
        """Of all that is not the attempt of now."""
        return [job for job in self.jobs if self.stage is None or job.key != (self.iteration, self.stage.name, self.stage.attempt)]

    @property
    def in_the_way(self) -> bool:
        """Some Job has pods, or goes on having its name: nothing starts beside it."""
        return any(holds(job) for job in self.jobs)

    def strays(self, now: datetime) -> tuple[Action, ...]:
        """Deletions of what is left behind and had its time to end by itself."""
        return deletions(job for job in self.former if holds(job) and patience(job, now) <= timedelta(0))

    def until_stray(self, now: datetime) -> timedelta | None:
        """Until the first of what is left behind had its time; None: there is nothing of the kind."""
        waits = [patience(job, now) for job in self.former if holds(job)]
        return min((wait for wait in waits if wait > timedelta(0)), default=None)


def holds(job: Job) -> bool:
    return not job.released or job.deleting


def lines_of(status: RLHFRunStatus, jobs: Iterable[Job]) -> Iterator[Line]:
    """That of the chain first, whatever is at work in it; then one for each stage beside it that is not over, or has Jobs."""
    beside = {(iteration, stage.name) for iteration, stage in stages_of(status) if stage.beside}
    by_line: dict[tuple[int | None, StageName] | None, list[Job]] = {None: []}
    for job in jobs:
        by_line.setdefault((job.iteration, job.stage) if (job.iteration, job.stage) in beside else None, []).append(job)
    at_work = {
        (iteration, stage.name) if stage.beside else None: (iteration, stage) for iteration, stage in unfinished_stages(status)
    }
    for key in dict.fromkeys([None, *at_work, *by_line]):
        iteration, stage = at_work.get(key, (None, None))
        yield Line(iteration, stage, tuple(by_line.get(key, ())))
