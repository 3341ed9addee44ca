"""What run --local shows while it works: on a terminal and off it."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.words import StageName
from rlhf_operator.local import LocalEvent, LocalEventKind, Progress
from rlhfctl.display import live, progress_line, terminal
from rlhfctl.display.plain import PlainDisplay
from rlhfctl.display.rates import Rate
from rlhfctl.sources.local.resuming import program as name_of_program
from support import example_runs
from support.rlhfctl import assert_screen

START = example_runs.START


def _terminal() -> terminal.Terminal:
    return terminal.Terminal(io.StringIO(), is_tty=False, colour=False, unicode=True, width=80)


def _progress(done: float, total: float | None = 600, **more: object) -> Progress:
    return Progress(done, total, "steps", **more)  # type: ignore[arg-type]


def _rate(*points: tuple[float, float]) -> Rate:
    rate = Rate()
    for seconds, done in points:
        rate.add(START + timedelta(seconds=seconds), _progress(done))
    return rate


def test_a_rate_needs_two_looks() -> None:
    assert _rate((0, 0)).per_second is None
    assert _rate((0, 0), (10, 100)).per_second == pytest.approx(10)


def test_a_rate_is_of_the_last_half_minute() -> None:
    assert _rate((0, 0), (60, 60), (90, 360), (100, 460)).per_second == pytest.approx(10)


def test_a_rate_begins_anew_when_a_stage_does() -> None:
    assert _rate((0, 500), (10, 600), (12, 0), (14, 10)).per_second == pytest.approx(5)


def test_time_left_is_what_is_left_over_the_rate() -> None:
    rate = _rate((0, 0), (10, 100))
    assert rate.seconds_left(_progress(100)) == pytest.approx(50)
    assert rate.seconds_left(_progress(100, None)) is None


def test_the_progress_line_has_how_far_how_fast_how_long_and_the_detail() -> None:
    line = progress_line.text(_progress(320, detail="loss 0.53"), _rate((0, 0), (10, 104)))
    assert line == "320/600 steps  10.4/s  26.9s left  loss 0.53".replace("26.9s", "27s")
    shards = progress_line.text(Progress(3, 8, "prompts", shards_done=1, shards=4), Rate())
    assert shards == "3/8 prompts  1/4 shards"


def test_a_bar_is_full_at_the_end_and_never_longer() -> None:
    assert progress_line.bar(_progress(600), unicode=False) == "#" * progress_line.BAR
    assert progress_line.bar(_progress(900), unicode=False) == "#" * progress_line.BAR
    assert progress_line.bar(_progress(0), unicode=False) == "-" * progress_line.BAR
    assert progress_line.bar(_progress(5, None), unicode=False) == ""


def _event(seconds: float, kind: LocalEventKind, message: str = "", **more: Any) -> LocalEvent:
    return LocalEvent(START + timedelta(seconds=seconds), kind, message, **more)


def test_off_a_terminal_each_event_is_one_line_with_its_time() -> None:
    out = _terminal()
    show = PlainDisplay(out)
    train: dict[str, Any] = {"iteration": 2, "stage": StageName.TRAIN}
    show(_event(0, LocalEventKind.STARTED, "Stage sft started (attempt 1).", stage=StageName.SFT, attempt=1))
    show(_event(75, LocalEventKind.SUCCEEDED, "Stage sft is done.", stage=StageName.SFT, attempt=1))
    show(_event(76, LocalEventKind.RETRYING, "Stage train of iteration 2 was killed; it is tried again.", attempt=1, **train))
    show(_event(80, LocalEventKind.PROGRESS, progress=_progress(0), attempt=2, **train))
    for second in range(81, 150):
        show(_event(second, LocalEventKind.PROGRESS, progress=_progress((second - 80) * 10), attempt=2, **train))
    show(_event(150, LocalEventKind.GATE, "Gate kl tripped: klToInitial 61 is above 50.", iteration=2))
    assert_screen("wide-plain.txt", out.stream.getvalue())  # type: ignore[attr-defined]


def test_the_live_picture_of_a_run_at_work_fits_80_columns() -> None:
    run = example_runs.at_work("quickstart", "file:///state/store")
    progress, rate = _progress(320, detail="loss 0.53"), _rate((0, 0), (10, 104))
    notes = ["retrying: Stage train of iteration 2 was killed by SIGKILL; it is tried again from its newest checkpoint."]
    lines = live.frame(run, progress, rate, notes, _terminal(), START + timedelta(seconds=700))
    assert_screen("live.txt", "\n".join(lines) + "\n")


def test_a_run_without_status_is_starting() -> None:
    run = example_runs.run("quickstart", "file:///state/store")
    assert live.frame(run, None, Rate(), [], _terminal(), START) == ["quickstart  starting"]


def test_on_a_low_terminal_the_oldest_stages_give_way() -> None:
    lines = [f"line {number}" for number in range(40)]
    fitted = live.fit(lines, 20)
    assert len(fitted) == 20
    assert fitted[:2] == lines[:2]
    assert fitted[3:] == lines[-17:]
    assert live.fit(lines, 50) == lines


def test_hints_name_the_program_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "rlhfctl"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert name_of_program() == "bin/rlhfctl"
    monkeypatch.setenv("PATH", str(program.parent))
    assert name_of_program() == "rlhfctl"
