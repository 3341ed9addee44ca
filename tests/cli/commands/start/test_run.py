"""run --local, from the manifest to the exit code. The backend is stood in for; test_run_stages.py beside it has the real one."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from rlhf_api import RLHFRun
from rlhf_api.words import StageName
from rlhf_operator.local import LocalEvent, LocalEventKind, LocalState, RunLocked
from rlhfctl.commands.foreground import driving
from rlhfctl.exits import Exit
from support import example_runs
from support.rlhfctl import rlhfctl

Make = Callable[[str, str], RLHFRun]


def _manifest(folder: Path, name: str = "tiny", **changes: object) -> Path:
    spec = example_runs.spec("", **changes)
    del spec["storage"]
    path = folder / f"{name}.yaml"
    manifest = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "metadata": {"name": name}, "spec": spec}
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return path


@pytest.fixture
def ends_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Make], list[RLHFRun]]:
    """Let run_local end as one of the example runs; returns the runs that it was given."""

    def stand_in(make: Make) -> list[RLHFRun]:
        given: list[RLHFRun] = []

        def run_local(
            run: RLHFRun, state: LocalState, *, cpu: bool, listener: Callable[[LocalEvent], None], stop: threading.Event
        ) -> RLHFRun:
            given.append(run)
            made = make(run.metadata.name, run.spec.storage.url)
            ended = run.model_copy(update={"status": made.status})
            example_runs.save(state.folder, ended)
            (state.run_folder(run.metadata.name) / "logs" / "sft-0-3.log").write_text("a line\nDiskFull: no space left\n")
            listener(LocalEvent(datetime.now(UTC), LocalEventKind.STARTED, "2 ranks", stage=StageName.SFT, attempt=1))
            return ended

        monkeypatch.setattr(driving, "run_local", run_local)
        return given

    return stand_in


def test_a_run_that_succeeds_says_what_came_out_and_where_it_lies(tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]) -> None:
    ends_as(example_runs.finished)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path)), cwd=tmp_path)
    assert done.code == 0
    assert "✓ tiny has succeeded in 10 min 22 s" in done.out
    assert "best iterate  π3, win rate against π0 0.731 [0.690, 0.771]" in done.out
    assert "checkpoint    .rlhf/store/policy/" in done.out
    assert "report        .rlhf/runs/tiny/report.html" in done.out
    assert (tmp_path / ".rlhf" / "runs" / "tiny" / "report.html").exists()
    assert "Z 2 ranks" in done.err


def test_the_store_is_in_the_state_folder_where_the_manifest_names_none(
    tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]
) -> None:
    given = ends_as(example_runs.finished)
    rlhfctl("run", "--state", "here", str(_manifest(tmp_path)), cwd=tmp_path)
    assert given[0].spec.storage.url == f"file://{tmp_path}/here/store"


def test_a_run_that_fails_shows_why_and_the_end_of_its_log(tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]) -> None:
    ends_as(example_runs.failed)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path)), cwd=tmp_path)
    assert done.code == Exit.RUN_FAILED
    assert done.out == ""
    said = " ".join(done.err.split())
    assert "run 'tiny' has failed why: sft failed 3 times: DiskFull" in said
    assert "the end of .rlhf/runs/tiny/logs/sft-0-3.log: | a line | DiskFull: no space left" in said
    assert "rlhfctl logs tiny --local" in said


def test_a_paused_run_says_how_to_approve(tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]) -> None:
    ends_as(example_runs.paused)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path)), cwd=tmp_path)
    assert done.code == Exit.RUN_FAILED
    assert "rlhfctl approve tiny --local" in done.err
    assert "rlhfctl run --local tiny.yaml" in done.err


def test_an_invalid_manifest_is_refused_before_anything_starts(tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]) -> None:
    given = ends_as(example_runs.finished)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path, iterations=0, seed=-1)), cwd=tmp_path)
    assert done.code == Exit.REFUSED
    assert "has 2 problems" in done.err
    assert given == []
    assert not (tmp_path / ".rlhf").exists()


def test_a_run_that_has_succeeded_is_not_replaced_by_another_under_its_name(
    tmp_path: Path, ends_as: Callable[[Make], list[RLHFRun]]
) -> None:
    given = ends_as(example_runs.finished)
    rlhfctl("run", "--local", str(_manifest(tmp_path)), cwd=tmp_path)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path, seed=7)), cwd=tmp_path)
    assert done.code == Exit.CONFLICT
    assert "the manifest changes spec.seed" in done.err
    assert "another metadata.name" in done.err
    assert len(given) == 1


def test_a_run_that_another_process_drives_names_that_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_local(run: RLHFRun, *_: object, **__: object) -> RLHFRun:
        raise RunLocked(run.metadata.name, 4711, "laptop", datetime(2026, 3, 1, tzinfo=UTC))

    monkeypatch.setattr(driving, "run_local", run_local)
    done = rlhfctl("run", "--local", str(_manifest(tmp_path)), cwd=tmp_path)
    assert done.code == Exit.CONFLICT
    assert "run 'tiny' is driven by process 4711 on laptop, since 2026-03-01 00:00:00" in " ".join(done.err.split())
    assert "kill -TERM 4711" in done.err


def test_an_unexpected_error_is_two_lines_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_local(*_: object, **__: object) -> RLHFRun:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(driving, "run_local", run_local)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = _manifest(tmp_path)
    done = rlhfctl("run", "--local", str(path), cwd=tmp_path)
    assert done.code == Exit.RUN_FAILED
    assert "Traceback" not in done.err
    assert "why: ZeroDivisionError: division by zero" in done.err
    assert "Traceback" in rlhfctl("run", "--local", str(path), cwd=tmp_path, env={"RLHFCTL_DEBUG": "1"}).err


def test_what_a_stage_says_of_the_manifest_is_taken_whole_from_its_log() -> None:
    """A status has room for two thousand characters, and the log's last lines for some of it."""
    problems = "\n".join(f"{number}. a problem {'x' * 300}" for number in range(1, 30))
    line = "2026-11-30 16:25:04,481 ERROR preflight failed (ConfigurationError): preflight found 29 problems:"
    said = driving._refusal(f"an earlier line\n{line}\n{problems}\n")
    assert said == f"preflight failed (ConfigurationError): preflight found 29 problems:\n{problems}"
    assert driving._refusal("a line\nDiskFull: no space left\n") is None
