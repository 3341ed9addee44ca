"""One round of one run: its backend, watched for what there is to measure, and the one reconcile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.actions import Action, CreateJob
from rlhf_operator.core.cursor import current_stage, stages_of
from rlhf_operator.kubernetes.objects.keys import RunKey
from rlhf_operator.kubernetes.telemetry.gaps import Gaps
from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from rlhf_operator.ports import Backend, Clock, Seen
from rlhf_operator.reconcile import reconcile


class Rounds:
    """Called by many workers, but for a key by one at a time. A backend lives as long as its run: it remembers what was refused."""

    def __init__(self, backend_of: Callable[[RunKey], Backend], clock: Clock, metrics: Metrics, gaps: Gaps) -> None:
        self._backend_of = backend_of
        self._clock = clock
        self._metrics = metrics
        self._gaps = gaps
        self._backends: dict[RunKey, Backend] = {}

    def __call__(self, key: RunKey) -> timedelta | None:
        """When to look again; None: when something changes."""
        backend = self._backends.get(key)
        if backend is None:
            backend = self._backends[key] = _Measured(self._backend_of(key), key, self._metrics, self._gaps)
        reconciled = reconcile(backend, self._clock)
        if reconciled is None:
            self._backends.pop(key, None)
            self._gaps.forget(key)
            return None
        before = reconciled.seen.run.status or RLHFRunStatus()
        if reconciled.carried_out and reconciled.decision.status.phase is not before.phase:
            # What we wrote ourselves is in the index already: the watch will not tell of it, and a finished run has a ttl to keep.
            return timedelta(0)
        return reconciled.requeue_after


class _Measured:
    """A backend that tells the metrics what it has really done."""

    def __init__(self, backend: Backend, key: RunKey, metrics: Metrics, gaps: Gaps) -> None:
        self._backend = backend
        self._key = key
        self._metrics = metrics
        self._gaps = gaps
        self._beside: set[tuple[int | None, StageName]] = set()

    def observe(self, *, live: bool) -> Seen | None:
        seen = self._backend.observe(live=live)
        if seen is not None:
            for job in seen.observed.jobs:
                if job.released and not job.deleting:
                    # The watch may never tell of it: what a live look has put into the index is no change any more.
                    self._gaps.ended(self._key, job.name)
        return seen

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        if not self._backend.write_status(seen, status):
            return False
        self._metrics.status_written(seen.run.status or RLHFRunStatus(), status)
        self._beside = {(iteration, stage.name) for iteration, stage in stages_of(status) if stage.beside}
        if _waits(status):
            self._gaps.waits(self._key)
        return True

    def apply(self, run: RLHFRun, action: Action) -> bool:
        done = self._backend.apply(run, action)
        if done and isinstance(action, CreateJob) and (action.iteration, action.stage) not in self._beside:
            self._gaps.created(self._key, action.name)
        return done


def _waits(status: RLHFRunStatus) -> bool:
    """For a person, a back-off or what is beside the chain, or it has ended: no Job is to follow at once."""
    current = current_stage(status)
    return status.phase not in (Phase.PENDING, Phase.RUNNING) or current is None or current[1].retry_at is not None
