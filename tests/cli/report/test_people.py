"""The report of a run that people label: what they answered, and how far they agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.conventions.annotations import annotations_key
from rlhf_operator.local import LocalState
from rlhf_store import open_store
from rlhfctl.report.page import render
from rlhfctl.results.collect import collect
from rlhfctl.results.model import Report
from support import example_runs
from support.people import PAIRS, imported, spec_of, waiting, write_answers

ROWS = [(PAIRS[0], "ann", "A"), (PAIRS[0], "<bob>", "A"), (PAIRS[1], "ann", "B"), (PAIRS[1], "<bob>", "A"), (PAIRS[2], "ann", "A")]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = waiting(tmp_path, annotatorsPerPair=2, minAnswered=0.5)
    assert imported(state, write_answers(state / "a.csv", ROWS)).code == 0
    return state


def report_of(state: Path) -> Report:
    run = LocalState(state).load("asking")
    return collect(run, open_store(run.spec.storage), example_runs.START)


def test_what_people_answered_is_shown_by_iteration_and_by_annotator(state: Path) -> None:
    report = report_of(state)
    [found] = report.people
    assert (found.iteration, found.pairs, found.tally.answered, found.tally.tied, found.tally.answers) == (1, 3, 2, 1, 5)
    page = render(report)
    assert "<h2>People</h2>" in page
    assert '<td class="n">2 <small>67%</small></td>' in page
    assert '<td>ann</td><td class="n">3</td><td class="n">67%</td>' in page
    assert "&lt;bob&gt;" in page
    assert not any("people" in sentence for sentence in report.missing)


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"no Parquet")])
def test_answers_that_cannot_be_read_are_named_and_the_rest_is_shown(state: Path, damage: object) -> None:
    [entry] = spec_of(state)["annotations"]
    assert callable(damage)
    damage(state / "store" / annotations_key(entry["digest"]))
    report = report_of(state)
    assert report.people == ()
    assert any("iteration 1, the answers of people" in sentence for sentence in report.missing)
    assert "<h2>People</h2>" not in render(report)


def test_a_run_that_waits_has_no_such_section_yet(tmp_path: Path) -> None:
    assert "<h2>People</h2>" not in render(report_of(waiting(tmp_path)))
