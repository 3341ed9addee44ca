"""The runs of a place: in order, and what cannot be read is named."""

from __future__ import annotations

from functools import partial

from rlhf_api import RLHFRun
from rlhfctl.errors import CliError, NotFound
from rlhfctl.sources.cluster.objects import parse_run
from rlhfctl.sources.source import listing
from support import example_runs

STORE = "s3://models/run"


def test_a_run_of_another_version_hides_no_other_in_a_list() -> None:
    good, other = (example_runs.finished(name, STORE).to_wire() for name in ("good", "other"))
    other["spec"]["iterations"] = "three"
    found = listing(partial(parse_run, wire) for wire in (other, good))
    assert [run.metadata.name for run in found.runs] == ["good"]
    (stored,) = found.stored
    assert (stored.name, found.left_out) == ("other", ())
    assert stored.why.startswith("run 'other' is of another version of the API")


def test_a_run_that_has_gone_since_it_was_seen_is_not_missed() -> None:
    def gone() -> RLHFRun:
        raise NotFound("there is no run 'gone'")

    assert listing([gone]) == listing([])


def test_runs_come_in_the_order_in_which_they_are_read() -> None:
    names = ("b", "a", "c")
    found = listing(partial(example_runs.finished, name, STORE) for name in names)
    assert tuple(run.metadata.name for run in found.runs) == names


def test_why_a_run_is_left_out_is_one_line() -> None:
    def damaged() -> RLHFRun:
        raise CliError("run 'x' cannot\nbe read", why="its file\nis damaged")

    assert listing([damaged]).left_out == ("run 'x' cannot be read (its file is damaged)",)
