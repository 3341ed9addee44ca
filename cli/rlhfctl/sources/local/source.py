"""The runs of a state folder, as the commands see them. It is looked at again and again: nothing tells of a change."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from rlhf_api import RLHFRun, RLHFRunSpec
from rlhf_api.conventions.log_names import LogName
from rlhf_operator.local import LocalState
from rlhfctl.sources.place import flag, shown
from rlhfctl.sources.source import Listing, LogNote, LogSelection, LogText, Sight, Target, heading_of, listing, phase_of

from .resuming import resume_command
from .state import backend_errors, holder_words, load

EVERY_SECONDS = 0.5
_PIECE = 1 << 20
_UTF8 = codecs.getincrementaldecoder("utf-8")


class LocalSource:
    """Implements Source."""

    def __init__(self, state: LocalState) -> None:
        self.state = state

    @property
    def flags(self) -> str:
        return flag(self.state.folder)

    @property
    def place(self) -> str:
        return shown(self.state.folder)

    def load(self, name: str) -> RLHFRun:
        return load(self.state, name)

    def runs(self) -> Listing:
        return listing(partial(load, self.state, name) for name in self.state.names())

    def change(self, name: str, change: Callable[[RLHFRunSpec], RLHFRunSpec]) -> RLHFRun:
        with backend_errors(self.state):
            return self.state.edit(name, change)

    def deletion(self, run: Target) -> str:
        with backend_errors(self.state):
            self.state.check_free(run.name)
        return f"its logs and its report go with it; its artifacts stay in {run.store or 'its store'}"

    def delete(self, run: Target) -> bool:
        with backend_errors(self.state):
            self.state.delete(run.name, datetime.now(UTC))
        return True

    def wait_until_gone(self, run: Target, timeout: float | None) -> None:
        """`delete` returns when it is."""

    def watch(self, name: str, timeout: float | None = None) -> Iterator[Sight]:
        deadline = None if timeout is None else time.monotonic() + timeout
        before: Sight | None = None
        while True:
            sight = self._look(name)
            if sight != before:
                before = sight
                yield sight
            if sight.rests or (deadline is not None and time.monotonic() >= deadline):
                return
            time.sleep(EVERY_SECONDS)

    def logs(self, name: str, wanted: LogSelection, *, follow: bool) -> Iterator[LogText | LogNote]:
        self.load(name)
        files = _LogFiles(self.state, name, wanted)
        while True:
            # Looked at before the files are read: what a run wrote before it came to rest is in them.
            rests = not follow or self._look(name).rests
            yield from files.new()
            if rests:
                return
            time.sleep(EVERY_SECONDS)

    def log_names(self, name: str) -> list[str]:
        return [path.stem for path in self.state.log_files(name)]

    def carried_out_by(self, run: RLHFRun) -> str:
        holder = self.state.holder(run.metadata.name)
        if holder is not None:
            return f"{holder_words(holder.pid)}, which drives the run, carries it out"
        return f"no process drives the run now: {self.run_again(run)}"

    def driver_lines(self, sight: Sight) -> list[str]:
        if phase_of(sight.run).finished:
            return []
        if sight.rests:
            return ["", f"no process drives it now; resume it: {self.run_again(sight.run)}"]
        holder = self.state.holder(sight.run.metadata.name)
        return [] if holder is None else ["", f"driven by {holder_words(holder.pid)} on {holder.host}"]

    def run_again(self, run: RLHFRun) -> str:
        return resume_command(run, self.state.folder)

    def report_file(self, name: str) -> str:
        return str(self.state.run_folder(name) / "report.html")

    def _look(self, name: str) -> Sight:
        # The holder first: a process that ends in between has written everything that is read then.
        driven = self.state.holder(name) is not None
        run = self.load(name)
        rests = phase_of(run).finished or not driven
        with backend_errors(self.state):
            return Sight(run, rests, progress=None if rests else self.state.progress_of(run))


class _LogFiles:
    """What log files have gained since the last look."""

    def __init__(self, state: LocalState, name: str, wanted: LogSelection) -> None:
        self._state, self._name, self._wanted = state, name, wanted
        self._read: dict[Path, int] = {}
        self._decoders: dict[Path, codecs.IncrementalDecoder] = {}

    def new(self) -> Iterator[LogText]:
        wanted = self._wanted
        for path in self._state.log_files(self._name, iteration=wanted.iteration, stage=wanted.stage, attempt=wanted.attempt):
            # A run that begins anew removes them.
            if path.is_file():
                with suppress(FileNotFoundError), path.open("rb") as file:
                    yield from self._new_of(path, file)

    def _new_of(self, path: Path, file: BinaryIO) -> Iterator[LogText]:
        """In pieces: a log may be longer than there is memory. A character whose end is not written yet waits for it."""
        decoder = self._decoders.setdefault(path, _UTF8(errors="replace"))
        file.seek(self._read.setdefault(path, 0))
        while content := file.read(_PIECE):
            self._read[path] = file.tell()
            yield LogText(heading(path), decoder.decode(content))


def heading(path: Path) -> str:
    """`train, iteration 2, attempt 1` from train-2-1.log."""
    name = LogName.parse(path.stem)
    if name is None:
        return path.name
    return heading_of(name) + ("" if name.index is None else f", shard {name.index}")
