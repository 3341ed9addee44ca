"""The logs of a run in a cluster: those of its stages' pods. They follow the run from pod to pod, across broken connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from rlhf_api import RLHFRun, RLHFRunSpec
from rlhf_api.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.execution import compute_of, shards_of

from .cluster import IDLE_SECONDS, Change, Connection, LogUnreadable
from .errors import NoConnection
from .objects import PodView
from .source import LogNote, LogSelection, LogText, Sight, log_heading
from .streams import Streams

#: A run that has ended has ended its pods; what they still write is waited for so long.
AFTER_END_SECONDS = 30.0
_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
#: So many failures without a new line between them: a node that does not answer for five minutes is lost.
_TRIES = 60


def read_pods(connection: Connection, run: RLHFRun, wanted: LogSelection) -> Iterator[LogText | LogNote]:
    """What the pods have written so far, oldest first."""
    pods = connection.pods(run)
    yield from gone_notes(run, pods, wanted)
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
    yield from gone_notes(run, pods, wanted)
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


def gone_notes(run: RLHFRun, pods: list[PodView], wanted: LogSelection) -> list[LogNote]:
    """Attempts that the run's status tells of and that have no pod any more."""
    there = {(pod.iteration, pod.stage, pod.attempt) for pod in pods}
    stages = [(iteration or 0, stage) for iteration, stage in stages_of(run.status or RLHFRunStatus())]
    gone = [
        f"{stage.name.value}-{number}-{attempt}"
        for number, stage in stages
        for attempt in range(1, stage.attempt + 1)
        if (number, stage.name, attempt) not in there
        and _matches(wanted, number, stage.name.value, attempt)
        # The newest attempt of a stage at work may have no pod yet.
        and (attempt < stage.attempt or stage.phase not in (Phase.PENDING, Phase.RUNNING))
    ]
    if not gone:
        return []
    names = ", ".join(gone[:6]) + (f" and {len(gone) - 6} more" if len(gone) > 6 else "")
    return [LogNote(f"gone with their pods: {names}. This version reads logs from pods; later ones read them from the store too.")]


def selected(pod: PodView, wanted: LogSelection) -> bool:
    return _matches(wanted, pod.iteration, pod.stage.value, pod.attempt)


def prefix(pod: PodView, spec: RLHFRunSpec) -> str:
    """`shard 3 | `, `node 1 | `; empty where one pod does the whole stage."""
    compute = compute_of(spec, pod.stage)
    if pod.index is None:
        return ""
    if shards_of(spec, pod.stage) > 1:
        return f"shard {pod.index} | "
    return f"node {pod.index} | " if compute is not None and compute.nodes > 1 else ""


@dataclass(frozen=True)
class _Ended:
    """Nothing more comes of this pod."""

    uid: str


def _heading(pod: PodView) -> str:
    return log_heading(pod.stage.value, pod.iteration, pod.attempt)


def _matches(wanted: LogSelection, iteration: int, stage: str, attempt: int) -> bool:
    return (
        wanted.iteration in (None, iteration)
        and (wanted.stage is None or wanted.stage.value == stage)
        and wanted.attempt in (None, attempt)
    )


def _readable(pod: PodView, wanted: LogSelection, known: set[str]) -> bool:
    return pod.started and pod.uid not in known and selected(pod, wanted)


def _read(connection: Connection, run: RLHFRun, pod: PodView) -> Iterator[LogText | LogNote]:
    title, before = _heading(pod), prefix(pod, run.spec)
    yield LogText(title, "")
    try:
        for line in connection.log(run.metadata.namespace, pod, follow=False):
            yield LogText(title, before + _untimed(line)[1] + "\n")
    except LogUnreadable as error:
        yield _unreadable(pod, error)


def _follow(connection: Connection, run: RLHFRun, pod: PodView) -> Iterator[LogText | LogNote | _Ended]:
    """All of one pod's log, each line once, whatever happens to the connection."""
    title, before, namespace = _heading(pod), prefix(pod, run.spec), run.metadata.namespace
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
        return LogNote(f"pod {pod.name} is gone, and its log with it; later versions read it from the store")
    return LogNote(f"the log of pod {pod.name} cannot be read: {error}")


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
