"""From a manifest file to a run that has ended, with its report and a summary. `run` and `quickstart` share it."""

from __future__ import annotations

from pathlib import Path

from rlhf_api import RLHFRun
from rlhf_api.words import Phase
from rlhf_operator.core.changes import immutable_changes, with_said_later
from rlhf_operator.local import LocalState, RunConflict
from rlhfctl.client.manifests import Local, read
from rlhfctl.display import terminal
from rlhfctl.errors import CliError
from rlhfctl.report import writing
from rlhfctl.sources.local.resuming import noted
from rlhfctl.sources.local.state import backend_errors, load
from rlhfctl.sources.source import phase_of

from .driving import drive, summary


def start(file: str, state: LocalState, *, cpu: bool, again: str) -> RLHFRun:
    """Read, validate, drive, report. The summary goes to stdout. `again` is the command that does the same once more.

    Raises:
        Refused, Conflict, RunFailed, Interrupted, CliError: as `read` and `drive` do.
    """
    run = read(file, Local(state.store_url, cpu=cpu))
    run = noted(run, file, cpu=cpu)
    _refuse_another(run, state)
    ended = drive(run, state, cpu=cpu, again=again)
    report = _report(ended, state)
    out = terminal.stdout()
    for line in summary(ended, state, report, out):
        out.line(line)
    return ended


def _refuse_another(run: RLHFRun, state: LocalState) -> None:
    """What has succeeded is not begun again as something else. (`run_local` refuses the other changes, under the run's lock.)

    Raises:
        Conflict: the run has succeeded, and the manifest describes another one under its name.
    """
    name = run.metadata.name
    if name not in state.names():
        return
    known = load(state, name)
    if phase_of(known) == Phase.SUCCEEDED and (
        fields := immutable_changes(known.spec, with_said_later(run.spec, known.spec, ended=True))
    ):
        with backend_errors(state):
            raise RunConflict(name, fields)


def _report(run: RLHFRun, state: LocalState) -> Path | None:
    """The report is a convenience here: where it cannot be made, the run has succeeded all the same."""
    try:
        return writing.write(run, state.run_folder(run.metadata.name) / "report.html")
    except CliError as error:
        terminal.stderr().line(f"! no report: {error.what}")
        return None
