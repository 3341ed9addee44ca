"""The runs of a cluster, as the commands see them. An operator drives them all; a watch tells of each change."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

from rlhf_api import RLHFRun, RLHFRunSpec
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from rlhfctl import figures
from rlhfctl.errors import CliError, Conflict, NotFound, TimedOut, hint_for
from rlhfctl.sources.place import Place
from rlhfctl.sources.source import (
    Listing,
    LogNote,
    LogSelection,
    LogText,
    Sight,
    Target,
    answers_of_people,
    command_for,
    names_of,
    phase_of,
    waits_for_people,
)

from .applying import merge_patch
from .changes import Change, patiently
from .connection import Connection, connection
from .events import of_run, until_the_end
from .gone_logs import gone_logs, kept_names
from .kubeconfig import resolve
from .logs import follow_pods, read_pods
from .objects import EventView
from .streams import Streams

#: Others write into a run all the time: its status is the operator's.
_TRIES = 5
#: An operator at work takes a new run up within a second.
_TAKEN_UP_SECONDS = 30.0


class ClusterSource:
    """Implements Source: the namespace that the options, the kubeconfig's context or the pod select; with -A all of them."""

    def __init__(self, connection: Connection, place: Place, say: Callable[[str], None]) -> None:
        """`say`: what is to be told beside the data, of a connection that is lost or a run that waits for somebody."""
        self.connection = connection
        self._place, self._say = place, say
        self._following = False

    @property
    def namespace(self) -> str:
        return self.connection.target.namespace

    @property
    def asked_namespace(self) -> str | None:
        """What -n says."""
        return self._place.namespace

    def in_namespace(self, namespace: str) -> ClusterSource:
        """The same cluster; a manifest may name a namespace of its own."""
        if namespace == self.namespace:
            return self
        return ClusterSource(self.connection.in_namespace(namespace), replace(self._place, namespace=namespace), self._say)

    @property
    def flags(self) -> str:
        given = {"-n": self._place.namespace, "--context": self._place.context, "--kubeconfig": self._place.kubeconfig}
        return " ".join(f"{flag} {shlex.quote(value)}" for flag, value in given.items() if value)

    @property
    def place(self) -> str:
        return "any namespace" if self._place.all_namespaces else f"namespace {self.namespace!r}"

    def load(self, name: str) -> RLHFRun:
        def read() -> RLHFRun:
            return self.connection.run(self.namespace, name)

        try:
            return patiently(read, self.connection.target.server, self._say) if self._following else read()
        except NotFound:
            raise self._not_found(name) from None

    def runs(self) -> Listing:
        return self.connection.runs(None if self._place.all_namespaces else self.namespace)

    def change(self, name: str, change: Callable[[RLHFRunSpec], RLHFRunSpec]) -> RLHFRun:
        for left in reversed(range(_TRIES)):
            known = self.load(name)
            patch = merge_patch(known.spec.to_wire(), change(known.spec).to_wire())
            if not patch:
                return known
            try:
                return self.connection.patch_run(known, {"spec": patch})
            except Conflict:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    def deletion(self, run: Target) -> str:
        stopped = "" if run.finished else f"it is {run.phase} and stops after a checkpoint; "
        return f"{stopped}its artifacts stay in {run.store or 'its store'}"

    def delete(self, run: Target) -> bool:
        self.connection.delete_run(run.namespace, run.name, run.uid)
        return False

    def wait_until_gone(self, run: Target, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        streams: Streams[Change[str]] = Streams()
        with closing(streams):
            streams.add(self.connection.run_uids(run.namespace, run.name, run.uid or "", self._say))
            for change in streams.until(deadline):
                if change.gone or change.object != run.uid:
                    return
        pods = len(self.connection.pods_of(run.namespace, run.name, run.uid))
        raise TimedOut(
            f"run {run.name!r} is still being deleted after {figures.duration(timeout or 0)}",
            why=f"{figures.plural(pods, 'pod')} of it still there: a stage may write a checkpoint" if pods else "",
        )

    def watch(self, name: str, timeout: float | None = None) -> Iterator[Sight]:
        deadline = None if timeout is None else time.monotonic() + timeout
        run = self.load(name)
        self._following = True
        yield Sight(run, phase_of(run).finished)
        if phase_of(run).finished:
            return
        held = self._tell_what_holds(run, None)
        streams: Streams[Change[RLHFRun]] = Streams()
        with closing(streams):
            streams.add(self.connection.run_changes(run, self._say))
            for change in streams.until(deadline):
                if change.gone or change.object.metadata.uid != run.metadata.uid:
                    raise NotFound(f"run {name!r} was deleted while it was watched")
                if change.object == run:
                    continue
                run = change.object
                yield Sight(run, phase_of(run).finished)
                if phase_of(run).finished:
                    return
                held = self._tell_what_holds(run, held)

    def logs(self, name: str, wanted: LogSelection, *, follow: bool) -> Iterator[LogText | LogNote]:
        run = self.load(name)
        if not follow:
            yield from read_pods(self.connection, run, wanted)
            return
        self._following = True
        yield from follow_pods(self.connection, run, wanted, self.watch(name), self._say)

    def log_names(self, name: str) -> list[str]:
        run = self.load(name)
        pods = self.connection.pods(run)
        kept = kept_names(run) if gone_logs(run, pods, LogSelection()) else []
        return list(dict.fromkeys([*kept, *(str(pod.log_name) for pod in pods if pod.started)]))

    def events(self, run: RLHFRun) -> list[EventView]:
        """Those of the run, of its Jobs and its pods that the cluster still has, oldest first."""
        return of_run(run, self.connection.events(self.namespace))

    def event_changes(self, run: RLHFRun) -> Iterator[EventView]:
        """What there is and what comes until the run has ended; one may come again."""
        return until_the_end(self.connection, run, self.watch(run.metadata.name), self._say)

    def carried_out_by(self, run: RLHFRun) -> str:  # noqa: ARG002 - the protocol's signature
        return "the operator carries it out"

    def driver_lines(self, sight: Sight) -> list[str]:
        run = sight.run
        seen = (run.status or RLHFRunStatus()).observed_generation
        if phase_of(run).finished or run.metadata.creation_timestamp is None:
            return []
        if run.metadata.deletion_timestamp is not None:
            return ["", "it is being deleted: its pods write checkpoints and end"]
        if seen is None and (datetime.now(UTC) - run.metadata.creation_timestamp).total_seconds() > _TAKEN_UP_SECONDS:
            look = "kubectl get deployments -A -l app.kubernetes.io/name=rlhf-operator"
            return ["", "no operator has taken it up; does one run, and does it watch this namespace?", f"  {look}"]
        return []

    def run_again(self, run: RLHFRun) -> str:  # noqa: ARG002 - the protocol's signature
        return ""

    def report_file(self, name: str) -> str:
        return f"{name}-report.html"

    def _tell_what_holds(self, run: RLHFRun, before: Phase | None) -> Phase:
        """Once, when the run begins to wait for somebody."""
        phase, name = phase_of(run), run.metadata.name
        if phase is not before:
            if phase is Phase.PAUSED and (commands := answers_of_people(self, run)):
                self._say(f"run {name!r} is paused and waits for people's answers: {commands[0]}")
            elif phase is Phase.PAUSED and not waits_for_people(run):
                self._say(f"run {name!r} is paused until somebody lets it go on: {command_for(self, 'approve', name)}")
            if phase is Phase.SUSPENDED and run.spec.suspend:
                self._say(f"run {name!r} is suspended until somebody lets it go on: {command_for(self, 'resume', name)}")
        return phase

    def _not_found(self, name: str) -> NotFound:
        try:
            listed = self.connection.runs(self.namespace)
            for sentence in listed.left_out:
                self._say(f"left out: {sentence}")
            known = names_of(listed)
        except CliError:
            known = []  # What may be read of one run may not be of all.
        hints = hint_for(name, known) or (
            (command_for(self, "list"),) if known else ("rlhfctl list -A   looks in every namespace",)
        )
        why = (
            f"it has {', '.join(known[:8])}{', …' if len(known) > 8 else ''}" if known else "no run is there, or none may be listed"
        )
        return NotFound(f"there is no run {name!r} in {self.place} ({self.connection.target.server})", why=why, hints=hints)


def connect(place: Place, say: Callable[[str], None]) -> ClusterSource:
    """Reads kubeconfigs; the API server is asked by the first command. `say` as ClusterSource has it.

    Raises:
        NoConnection, UsageProblem: no cluster is configured as the options want it.
    """
    return ClusterSource(connection(resolve(place.kubeconfig, place.context, place.namespace, os.environ)), place, say)


def names_within(place: Place, seconds: float) -> list[str]:
    """Names of runs for a completion: none where they cannot be had in time, whatever the reason."""
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(names_of(connect(place, _nothing).runs()))
        except CliError:
            return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(seconds)
    return sorted(found)


def _nothing(_: str) -> None:
    """A shell that completes a word shows nothing else."""
