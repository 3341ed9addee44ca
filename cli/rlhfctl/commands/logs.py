"""`rlhfctl logs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhfctl import terminal
from rlhfctl.options import local_options, run_argument, state_folder

if TYPE_CHECKING:
    from rlhf_api.words import StageName
    from rlhf_operator.local import LocalState

STAGES = ("preflight", "sft", "reward", "sample", "label", "reference", "train", "evaluate", "finalize")


@click.command("logs")
@run_argument
@local_options
@click.option("-f", "--follow", is_flag=True, help="Go on as the run writes, from stage to stage. Ctrl-C detaches.")
@click.option("--stage", type=click.Choice(STAGES), help="Of this stage only.")
@click.option(
    "--iteration", type=click.IntRange(min=0), metavar="N", help="Of this iteration only; 0: the stages of the run itself."
)
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt only. [default: all]")
def command(
    name: str, local: bool, state_dir: str | None, follow: bool, stage: str | None, iteration: int | None, attempt: int | None
) -> None:
    """Print the logs of the run NAME, oldest stage first.

    A heading on stderr names each log; stdout has the logs alone.
    """
    folder = state_folder(local, state_dir, "reading logs")
    from rlhf_api.words import StageName
    from rlhf_operator.local import LocalState
    from rlhfctl import watching
    from rlhfctl.local import flag, load

    state = LocalState(folder)
    load(state, name)
    printer = _Printer(state, name, None if stage is None else StageName(stage), iteration, attempt)
    if not follow:
        printer.print_new()
        if not printer.files:
            _refuse_nothing(state, name)
        return
    with watching.detaching(f"rlhfctl logs {name} {flag(state.folder)} --follow"):
        while True:
            rests = watching.at_rest(load(state, name), state)
            printer.print_new()
            if rests:
                break
            watching.until(printer.has_new, watching.EVERY_SECONDS)
    watching.mirror(load(state, name), state)


class _Printer:
    """Prints what log files have gained since the last look."""

    def __init__(self, state: LocalState, name: str, stage: StageName | None, iteration: int | None, attempt: int | None) -> None:
        self.state, self.name, self.stage, self.iteration, self.attempt = state, name, stage, iteration, attempt
        self.files: dict[Path, int] = {}
        self._last: Path | None = None
        self._out, self._err = terminal.stdout(), terminal.stderr()

    def has_new(self) -> bool:
        return any(path.stat().st_size > self.files.get(path, 0) for path in self._paths())

    def print_new(self) -> None:
        for path in self._paths():
            with path.open("rb") as file:
                file.seek(self.files.setdefault(path, 0))
                content = file.read()
                self.files[path] = file.tell()
            if content:
                if path != self._last:
                    self._err.line(self._err.paint(f"==> {heading(path)} <==", "bold"))
                self._last = path
                self._out.stream.write(content.decode(errors="replace"))
                self._out.stream.flush()

    def _paths(self) -> list[Path]:
        return self.state.log_files(self.name, iteration=self.iteration, stage=self.stage, attempt=self.attempt)


def heading(path: Path) -> str:
    """`train, iteration 2, attempt 1` from train-2-1.log."""
    match = re.fullmatch(r"([a-z]+)-(\d+)-(\d+)(?:-(\d+))?", path.stem)
    if match is None:
        return path.name
    stage, iteration, attempt, shard = match.groups()
    where = "" if iteration == "0" else f", iteration {iteration}"
    return f"{stage}{where}, attempt {attempt}" + ("" if shard is None else f", shard {shard}")


def _refuse_nothing(state: LocalState, name: str) -> None:
    from rlhfctl.errors import NotFound
    from rlhfctl.local import flag

    there = ", ".join(path.stem for path in state.log_files(name))
    hint = (f"rlhfctl logs {name} {flag(state.folder)}",) if there else (f"rlhfctl status {name} {flag(state.folder)}",)
    raise NotFound(f"run {name!r} has no such log", why=f"it has {there}" if there else "no stage has started", hints=hint)
