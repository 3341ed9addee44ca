"""Events of a run and of its Jobs and pods, as lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from rlhf_api import RLHFRun
from rlhf_api.words import KIND, StageName
from rlhf_operator.core.names import child_name
from rlhfctl.commands.watching import detaching, mirror
from rlhfctl.display import terminal
from rlhfctl.display.terminal import Terminal
from rlhfctl.sources.source import Sight, command_for

from .objects import EventView
from .source import ClusterSource, say
from .streams import Streams

_STAGES = "|".join(stage.value for stage in StageName)
#: Clocks of nodes differ; an Event of a former run of the same name is older than that.
_SKEW = timedelta(seconds=5)


def print_events(source: ClusterSource, name: str) -> None:
    """Those that the cluster still has, oldest first; it forgets them after an hour."""
    run = source.load(name)
    found = of_run(run, source.connection.events(source.namespace))
    out = terminal.stdout()
    for event in found:
        _print(event, out)
    if not found:
        terminal.stderr().line(f"the cluster has no events of run {name!r}; it keeps them for about an hour")


def follow_events(source: ClusterSource, name: str) -> None:
    """The same, then what comes, until the run has ended; then mirror how it ended."""
    run = source.load(name)
    out = terminal.stdout()
    with detaching(command_for(source, "events", name, "--watch")):
        seen: dict[str, int] = {}
        for event in of_run(run, source.connection.events(source.namespace)):
            seen[event.uid] = event.count
            _print(event, out)
        for event in _until_the_end(source, run):
            if seen.get(event.uid) != event.count:
                seen[event.uid] = event.count
                _print(event, out)
    mirror(source.load(name), source)


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


def _until_the_end(source: ClusterSource, run: RLHFRun) -> Iterator[EventView]:
    belongs = Belongs(run)
    streams: Streams[EventView | Sight] = Streams()
    with closing(streams):
        streams.add(source.connection.event_changes(source.namespace, say))
        streams.add(source.watch(run.metadata.name))
        for item in streams.until(None):
            if isinstance(item, EventView):
                if belongs(item):
                    yield item
            elif item.rests:
                break
        # The Event of the end is written beside the status that tells of it, a moment earlier or later.
        yield from of_run(run, source.connection.events(source.namespace))


def _print(event: EventView, out: Terminal) -> None:
    kind = "run" if event.kind == KIND else event.kind.lower()
    times = f" ({event.count} times)" if event.count > 1 else ""
    mark = out.paint("! ", "yellow") if event.type == "Warning" else "  "
    about = f"{kind}/{event.name}" if kind != "run" else "run"
    out.line(f"{mark}{_stamp(event.time)} {out.paint(event.reason, 'bold')}{times} {out.paint(about, 'dim')}")
    out.wrapped(event.message or "-", "    ")


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
