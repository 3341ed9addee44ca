"""The logs of a run in a cluster: those of its stages' pods. They follow the run from pod to pod, across broken connections."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime

from rlhf_api import RLHFRun
from rlhfctl.errors import NoConnection
from rlhfctl.sources.source import LogNote, LogSelection, LogText, Sight, heading_of, prefix, selects

from .changes import Change, patiently
from .connection import IDLE_SECONDS, Connection, LogUnreadable
from .gone_logs import gone_logs, read_gone
from .objects import PodView
from .streams import Streams

#: A run that has ended has ended its pods; what they still write is waited for so long.
AFTER_END_SECONDS = 30.0
_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
#: So many failures without a new line between them: a node that does not answer for five minutes is lost.
_TRIES = 60
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def read_pods(connection: Connection, run: RLHFRun, wanted: LogSelection) -> Iterator[LogText | LogNote]:
    """What the pods have written so far, oldest first: those that are gone, then those that are there."""
    pods = connection.pods(run)
    yield from read_gone(run, gone_logs(run, pods, wanted))
    for pod in (pod for pod in pods if selected(pod, wanted)):
        if pod.started:
            yield from _read(connection, run, pod)
        else:
            yield LogNote(f"pod {pod.name} has not started" + (f": {pod.waits_for}" if pod.waits_for else ""))


def follow_pods(
    connection: Connection, run: RLHFRun, wanted: LogSelection, watched: Iterable[Sight], say: Callable[[str], None]
) -> Iterator[LogText | LogNote]:
    """The same, then what is added, stage by stage, until the run has ended and its pods have."""
    pods = connection.pods(run)
    yield from read_gone(run, gone_logs(run, pods, wanted))
    read: set[str] = set()
    # What has ended is read in its order; only what is written now may come from several pods at once.
    for pod in (pod for pod in pods if pod.ended and _readable(pod, wanted, read)):
        yield from _read(connection, run, pod)
        read.add(pod.uid)
    streams: Streams[Sight | Change[PodView] | LogText | LogNote | _Ended] = Streams()
    reading: set[str] = set()
    deadline: float | None = None
    with closing(streams):
        streams.add(connection.pod_changes(run, say))
        streams.add(watched)
        while True:
            for item in streams.until(deadline):
                if isinstance(item, Sight):
                    if item.rests:
                        deadline = time.monotonic() + AFTER_END_SECONDS
                        # A pod that started and ended with the run may not have been told yet.
                        there = patiently(lambda: connection.pods(run), connection.target.server, say)
                        new = [pod for pod in there if _readable(pod, wanted, reading | read)]
                    else:
                        continue
                elif isinstance(item, Change):
                    new = [item.object] if not item.gone and _readable(item.object, wanted, reading | read) else []
                elif isinstance(item, _Ended):
                    new = []
                    reading.discard(item.uid)
                    read.add(item.uid)
                else:
                    yield item
                    continue
                for pod in new:
                    reading.add(pod.uid)
                    streams.add(_follow(connection, run, pod))
                if deadline is not None and not reading:
                    return
                if deadline is not None:
                    break  # Ask again, with the deadline.
            else:
                if reading:
                    yield LogNote(f"the run has ended, and {len(reading)} of its pods go on; their logs are followed no further")
                return


def selected(pod: PodView, wanted: LogSelection) -> bool:
    return selects(wanted, pod.log_name)


@dataclass(frozen=True)
class _Ended:
    """Nothing more comes of this pod."""

    uid: str


def _readable(pod: PodView, wanted: LogSelection, known: set[str]) -> bool:
    return pod.started and pod.uid not in known and selected(pod, wanted)


def _read(connection: Connection, run: RLHFRun, pod: PodView) -> Iterator[LogText | LogNote]:
    title, before = heading_of(pod.log_name), prefix(pod.log_name, run.spec)
    yield LogText(title, "")
    try:
        for line in connection.log(run.metadata.namespace, pod, follow=False):
            yield LogText(title, before + _untimed(line)[1] + "\n")
    except LogUnreadable as error:
        yield _unreadable(pod, error)


def _follow(connection: Connection, run: RLHFRun, pod: PodView) -> Iterator[LogText | LogNote | _Ended]:
    """All of one pod's log, each line once, whatever happens to the connection."""
    title, before, namespace = heading_of(pod.log_name), prefix(pod.log_name, run.spec), run.metadata.namespace
    shown, tries = _Shown(), 0
    now: PodView | None = pod
    while now is not None:
        over, error, began = now.ended, None, time.monotonic()
        try:
            for text in shown.new(connection.log(namespace, now, follow=True, since=shown.since)):
                tries = 0
                yield LogText(title, f"{before}{text}\n")
        except LogUnreadable as caught:
            # One that was only silent is asked again, for as long as the pod works.
            error = caught if caught.gone or time.monotonic() - began < IDLE_SECONDS else None
            over = over and error is not None
        if error is None and over:
            break
        if error is not None and (error.gone or tries >= _TRIES or (over and tries >= 3)):
            yield _unreadable(pod, error)
            break
        time.sleep(_WAITS[min(tries, len(_WAITS) - 1)])
        # A stream that ends well while the pod works (a log was rotated) is no reason to give up.
        tries = tries + 1 if error is not None else min(tries + 1, len(_WAITS) - 1)
        with suppress(NoConnection):
            now = connection.pod(namespace, pod)
    yield _Ended(pod.uid)


class _Shown:
    """What has been told of a log, by the times of its lines. Lines that came together may have one time."""

    def __init__(self) -> None:
        self._newest: _Time | None = None
        self._of_newest = 0

    @property
    def since(self) -> str | None:
        """For sinceTime, which knows seconds: the beginning of the newest line's."""
        return None if self._newest is None else self._newest.second

    def new(self, lines: Iterable[bytes]) -> Iterator[str]:
        """Lines of one answer, without their times. It begins with a second of which some have been told before."""
        again, told = self._newest, self._of_newest
        for line in lines:
            time, text = _untimed(line)
            if again is not None and time is not None:
                if time.order < again.order:
                    continue
                if time.order == again.order and told:
                    told -= 1
                    continue
                again = None
            if time is not None:
                same = self._newest is not None and time.order == self._newest.order
                self._newest, self._of_newest = time, self._of_newest + 1 if same else 1
            yield text


def _unreadable(pod: PodView, error: LogUnreadable) -> LogNote:
    if error.gone:
        return LogNote(f"pod {pod.name} went before all of its log was read; run this command again, and it comes from the store")
    return LogNote(f"the log of pod {pod.name} cannot be read: {error}; when the pod is gone, this command reads it from the store")


@dataclass(frozen=True)
class _Time:
    """RFC 3339 as Go writes it: with up to nine digits of a second, of any offset."""

    second: str
    fraction: str

    @classmethod
    def parse(cls, text: str) -> _Time | None:
        found = _TIME.fullmatch(text)
        return None if found is None else cls(f"{found[1]}{found[3]}", (found[2] or "").ljust(10, "0"))

    @property
    def order(self) -> tuple[datetime, str]:
        return datetime.fromisoformat(self.second), self.fraction


def _untimed(line: bytes) -> tuple[_Time | None, str]:
    """The time that the kubelet wrote before a line, and the line; no time where it wrote none."""
    text = line.decode(errors="replace").removesuffix("\r")
    stamp, _, rest = text.partition(" ")
    time = _Time.parse(stamp)
    return (None, text) if time is None else (time, rest)
