"""Where runs are, as the commands see it: a folder of this machine or a namespace of a cluster.

Each command is written once, over `Source`; `local.source` and `cluster.source` implement it. Whatever goes wrong is a CliError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rlhf_api import RLHFRun, RLHFRunSpec
from rlhf_api.conventions.log_names import LogName
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase, Reason, StageName
from rlhf_operator.core.jobs.execution import compute_of, shards_of
from rlhf_operator.local import Progress
from rlhfctl.errors import CliError, NotFound, OtherVersion


@dataclass(frozen=True)
class Sight:
    """A run at one moment."""

    run: RLHFRun
    rests: bool
    """Nothing more happens by itself: it has ended, or nobody drives it."""
    progress: Progress | None = None
    """Of the stage at work, where that can be known; None where nothing is at work."""


@dataclass(frozen=True)
class LogSelection:
    """Of one stage, iteration (0: the stages of the run itself) or attempt only; None: of all."""

    stage: StageName | None = None
    iteration: int | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class LogText:
    """A piece of one log; empty where a log exists and holds nothing yet."""

    heading: str
    text: str


@dataclass(frozen=True)
class LogNote:
    """Not of a log, but about one: it is gone, it cannot be read."""

    text: str


@dataclass(frozen=True)
class Target:
    """What is needed to delete a run, whatever else it holds."""

    name: str
    namespace: str
    uid: str | None
    phase: str
    """May be another version's word."""
    store: str
    """URL; may be empty."""

    @property
    def finished(self) -> bool:
        return self.phase in {phase.value for phase in Phase if phase.finished}


@dataclass(frozen=True)
class Stored:
    """A run with words that this version does not know, as it is stored: no field of it can be counted on."""

    raw: Mapping[str, Any]
    why: str
    """One line."""

    @property
    def name(self) -> str:
        return self.text("metadata", "name")

    @property
    def namespace(self) -> str:
        return self.text("metadata", "namespace") or "default"

    def text(self, *path: str) -> str:
        """What stands there; empty where nothing does."""
        found: Any = self.raw
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return "" if found is None else " ".join(str(found).split())

    def time(self, *path: str) -> datetime | None:
        try:
            return datetime.fromisoformat(self.text(*path))
        except ValueError:
            return None


@dataclass(frozen=True)
class Listing:
    """The runs of a place."""

    runs: tuple[RLHFRun, ...]
    stored: tuple[Stored, ...] = ()
    """Those of another version."""
    left_out: tuple[str, ...] = ()
    """Runs that cannot be read, one sentence each."""


class Source(Protocol):
    """A place with runs."""

    @property
    def flags(self) -> str:
        """What a command line needs to come here again: `--local`, `-n research`; may be empty."""
        ...

    @property
    def place(self) -> str:
        """For a sentence: `.rlhf`, `namespace research`."""
        ...

    def load(self, name: str) -> RLHFRun:
        """Raises NotFound, with the nearest name there is, and OtherVersion."""
        ...

    def runs(self) -> Listing:
        """By name; those of a cluster by namespace before. One run that cannot be read hides no other."""
        ...

    def change(self, name: str, change: Callable[[RLHFRunSpec], RLHFRunSpec]) -> RLHFRun:
        """Write what `change` makes of the spec. Raises NotFound, and Conflict where that cannot change."""
        ...

    def deletion(self, run: Target) -> str:
        """What deleting it would end, and what stays, as half a sentence. Raises Conflict where it cannot be deleted now."""
        ...

    def delete(self, run: Target) -> bool:
        """Begin to delete it; whether it is gone already. Raises as `deletion` does."""
        ...

    def wait_until_gone(self, run: Target, timeout: float | None) -> None:
        """Return when the run and everything that belonged to it is gone.

        Raises:
            TimedOut: it is still there after `timeout` seconds.
        """
        ...

    def watch(self, name: str, timeout: float | None = None) -> Iterator[Sight]:
        """The run as it is now, then each time that something about it is new; ends when it rests, or after `timeout` seconds.

        Raises NotFound when there is no such run, or when it goes while it is watched.
        """
        ...

    def logs(self, name: str, wanted: LogSelection, *, follow: bool) -> Iterator[LogText | LogNote]:
        """What the logs hold, oldest first; with `follow`, what is added too, until the run rests."""
        ...

    def log_names(self, name: str) -> list[str]:
        """The logs there are: `train-2-1`."""
        ...

    def carried_out_by(self, run: RLHFRun) -> str:
        """Half a sentence: who carries a change of the spec out."""
        ...

    def driver_lines(self, sight: Sight) -> list[str]:
        """Below the status of an unfinished run: who works on it."""
        ...

    def run_again(self, run: RLHFRun) -> str:
        """The command that drives a run on that nobody drives; empty where somebody always does."""
        ...

    def report_file(self, name: str) -> str:
        """Where `rlhfctl report` writes, if nothing else is said."""
        ...


def listing(reads: Iterable[Callable[[], RLHFRun]]) -> Listing:
    """What each of `reads` returns, in their order; one that cannot be read is left out and named. NotFound: it has gone since."""
    runs, stored, left_out = [], [], []
    for read in reads:
        try:
            runs.append(read())
        except NotFound:
            continue
        except OtherVersion as error:
            stored.append(stored_of(error))
        except CliError as error:
            left_out.append(_line(error))
    return Listing(tuple(runs), tuple(stored), tuple(left_out))


def names_of(listed: Listing) -> list[str]:
    return [*(run.metadata.name for run in listed.runs), *(run.name for run in listed.stored)]


def stored_of(error: OtherVersion) -> Stored:
    return Stored(error.raw, _line(error))


def target_of(source: Source, name: str) -> Target:
    """The run of this name, of this version or another; raises NotFound."""
    try:
        run = source.load(name)
    except OtherVersion as error:
        found = stored_of(error)
        uid, phase = found.text("metadata", "uid"), found.text("status", "phase")
        return Target(name, found.namespace, uid or None, phase or Phase.PENDING.value, found.text("spec", "storage", "url"))
    return Target(name, run.metadata.namespace, run.metadata.uid, phase_of(run).value, run.spec.storage.url)


def _line(error: CliError) -> str:
    why = f" ({error.why})" if error.why else ""
    return " ".join(f"{error.what}{why}".split())


def heading_of(name: LogName) -> str:
    """`train, iteration 2, attempt 1`; iteration 0 is the run itself."""
    where = f", iteration {name.iteration}" if name.iteration else ""
    return f"{name.stage.value}{where}, attempt {name.attempt}"


def prefix(name: LogName, spec: RLHFRunSpec) -> str:
    """`shard 3 | `, `node 1 | `; empty where one pod does the whole stage."""
    compute = compute_of(spec, name.stage)
    if name.index is None:
        return ""
    if shards_of(spec, name.stage) > 1:
        return f"shard {name.index} | "
    return f"node {name.index} | " if compute is not None and compute.nodes > 1 else ""


def selects(wanted: LogSelection, name: LogName) -> bool:
    return (
        wanted.iteration in (None, name.iteration) and wanted.stage in (None, name.stage) and wanted.attempt in (None, name.attempt)
    )


def command_for(source: Source, *words: str) -> str:
    """A command line that comes back to a run: the command and the run's name, how to find it, further options."""
    before, after = words[:2], words[2:]
    return " ".join(word for word in ("rlhfctl", *before, source.flags, *after) if word)


def waits_for_people(run: RLHFRun) -> bool:
    """It was paused until people have answered; that they have may not be seen yet."""
    status = run.status or RLHFRunStatus()
    asks = any(entry.reason is Reason.AWAITING_ANNOTATIONS for entry in status.conditions)
    return status.phase is Phase.PAUSED and asks and bool(status.iterations)


def answers_of_people(source: Source, run: RLHFRun) -> tuple[str, ...]:
    """Commands that take out what the run asks people, and bring the answers in; none where it waits for nobody's."""
    status, name = run.status or RLHFRunStatus(), run.metadata.name
    # The newest: an iteration begins when the one before it has ended.
    number = max((entry.number for entry in status.iterations), default=0)
    if not waits_for_people(run) or number in {entry.iteration for entry in run.spec.annotations}:
        return ()
    which = ("--iteration", str(number))
    return (
        command_for(source, "annotations", "export", name, *which, "--output", f"{name}-questions-{number}"),
        command_for(source, "annotations", "import", name, *which, "FILE"),
    )


def phase_of(run: RLHFRun) -> Phase:
    return (run.status or RLHFRunStatus()).phase
