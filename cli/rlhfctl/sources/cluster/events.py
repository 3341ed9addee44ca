"""Which of a namespace's Events are about a run, its Jobs and its pods; those that come until it has ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import timedelta

from rlhf_api import RLHFRun
from rlhf_api.words import KIND, StageName
from rlhf_operator.core.jobs.names import child_name
from rlhfctl.sources.source import Sight

from .connection import Connection
from .objects import EventView
from .streams import Streams

_STAGES = "|".join(stage.value for stage in StageName)
#: Clocks of nodes differ; an Event of a former run of the same name is older than that.
_SKEW = timedelta(seconds=5)


def of_run(run: RLHFRun, events: Iterable[EventView]) -> list[EventView]:
    """Oldest first."""
    belongs = Belongs(run)
    # Kubelets tell seconds, schedulers microseconds.
    return sorted(
        (event for event in events if belongs(event)), key=lambda event: (event.time.replace(microsecond=0), event.version)
    )


class Belongs:
    """Is an Event about this run, or about a Job or pod of it? Jobs that are gone are known by their names, which are the run's."""

    def __init__(self, run: RLHFRun) -> None:
        name = run.metadata.name
        of_run = child_name(name, None, StageName.PREFLIGHT, 1).removesuffix("-i0-preflight-1")
        job = rf"{re.escape(of_run)}-i\d+-(?:{_STAGES})-\d+"
        self._job, self._pod = re.compile(job), re.compile(rf"{job}-(?:\d+-)?[a-z0-9]{{5}}")
        self._run = run

    def __call__(self, event: EventView) -> bool:
        metadata = self._run.metadata
        if event.kind == KIND:
            return event.name == metadata.name and event.about in ("", metadata.uid)
        if metadata.creation_timestamp is not None and event.time < metadata.creation_timestamp - _SKEW:
            return False
        names = {"Job": self._job, "Pod": self._pod}
        return event.kind in names and names[event.kind].fullmatch(event.name) is not None


def until_the_end(connection: Connection, run: RLHFRun, sights: Iterable[Sight], say: Callable[[str], None]) -> Iterator[EventView]:
    """What there is and what comes, until a sight says that the run rests; one may come again."""
    namespace = run.metadata.namespace
    belongs = Belongs(run)
    streams: Streams[EventView | Sight] = Streams()
    with closing(streams):
        streams.add(connection.event_changes(namespace, say))
        streams.add(sights)
        for item in streams.until(None):
            if isinstance(item, EventView):
                if belongs(item):
                    yield item
            elif item.rests:
                break
        # The Event of the end is written beside the status that tells of it, a moment earlier or later.
        yield from of_run(run, connection.events(namespace))
