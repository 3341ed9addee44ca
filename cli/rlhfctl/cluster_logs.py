"""The logs of a run in a cluster: those of its stages' pods. They follow the run from pod to pod, across broken connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from rlhf_api import RLHFRun

from .cluster import IDLE_SECONDS, Change, Connection, LogUnreadable
from .errors import NoConnection
from .gone_logs import gone_logs, read_gone
from .objects import PodView
from .source import LogNote, LogSelection, LogText, Sight, heading_of, prefix, selects
from .streams import Streams

#: A run that has ended has ended its pods; what they still write is waited for so long.
AFTER_END_SECONDS = 30.0
_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
#: So many failures without a new line between them: a node that does not answer for five minutes is lost.
_TRIES = 60


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
    connection: Connection, run: RLHFRun, wanted: LogSelection, watched: Iterable[Sight], note: Callable[[str], None]
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
        streams.add(connection.pod_changes(run, note))
        streams.add(watched)
        while True:
            for item in streams.until(deadline):
                if isinstance(item, Sight):
                    if item.rests:
                        deadline = time.monotonic() + AFTER_END_SECONDS
                        # A pod that started and ended with the run may not have been told yet.
                        new = [pod for pod in connection.pods(run) if _readable(pod, wanted, reading | read)]
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
    newest, tries = "", 0
    now: PodView | None = pod
    while now is not None:
        over, error, began = now.ended, None, time.monotonic()
        try:
            for line in connection.log(namespace, now, follow=True, since=_second(newest)):
                stamp, text = _untimed(line)
                # The server goes back to the beginning of a second: what is there already is not told again.
                if stamp and _order(stamp) <= _order(newest):
                    continue
                newest, tries = stamp or newest, 0
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


def _unreadable(pod: PodView, error: LogUnreadable) -> LogNote:
    if error.gone:
        return LogNote(f"pod {pod.name} went before all of its log was read; run this command again, and it comes from the store")
    return LogNote(f"the log of pod {pod.name} cannot be read: {error}; when the pod is gone, this command reads it from the store")


def _untimed(line: bytes) -> tuple[str, str]:
    """The time that the kubelet wrote before a line, and the line; no time where it wrote none."""
    text = line.decode(errors="replace").removesuffix("\r")
    stamp, _, rest = text.partition(" ")
    return (stamp, rest) if _is_time(stamp) else ("", text)


def _is_time(text: str) -> bool:
    return len(text) >= 20 and text[4] == text[7] == "-" and text[10] == "T" and text[:4].isdigit()


def _order(stamp: str) -> tuple[str, str]:
    """RFC 3339 with nanoseconds, as Go writes it, without zeros at the end; kubelets write UTC, or one offset."""
    return stamp[:19], stamp[19:].lstrip(".").rstrip("Z").partition("+")[0].ljust(9, "0")


def _second(stamp: str) -> str | None:
    """For sinceTime, which knows seconds."""
    if not stamp:
        return None
    zone = stamp[19:].lstrip(".0123456789") or "Z"
    return f"{stamp[:19]}{zone}"
