"""annotations: questions out of a run's store, answers into it and into the run's spec."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlhf_api.conventions.annotations import annotations_key
from rlhf_api.resource.labeler import Annotations
from rlhf_api.words import Phase
from rlhf_operator.local import LocalState
from rlhfctl.client import steering
from rlhfctl.errors import Conflict
from rlhfctl.exits import Exit
from rlhfctl.sources.local.source import LocalSource
from support import example_runs
from support.people import ALL, PAIRS, Row, imported, spec_of, waiting, write_answers
from support.rlhfctl import rlhfctl


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A run that waits for the answers to three questions of iteration 1."""
    return waiting(tmp_path)


def test_questions_are_exported_as_they_were_sealed_with_what_is_expected_back(tmp_path: Path) -> None:
    state = waiting(tmp_path, instructions="Prefer the shorter one.")
    done = rlhfctl("annotations", "export", "asking", "--iteration", "1", "--output", str(state / "out"), "--state", str(state))
    assert (done.code, done.out) == (0, ""), done.err
    assert "3 pairs are in" in " ".join(done.err.split())
    assert (state / "out" / "questions.parquet").read_bytes() == b"parquet"
    assert (state / "out" / "questions.jsonl").read_bytes().count(b"pair_id") == 3
    readme = (state / "out" / "README").read_text()
    assert "Prefer the shorter one." in readme
    command = f"rlhfctl annotations import --state {state} asking --iteration 1 FILE"
    assert f"Bring it in with: {command}" in readme
    assert command in " ".join(done.err.split())
    assert "pair_id, annotator (any name that is one\nperson's own), choice (A, B or tie)" in readme


def test_an_iteration_that_has_not_asked_yet_is_not_found(state: Path) -> None:
    done = rlhfctl("annotations", "export", "asking", "--iteration", "2", "--output", str(state / "out"), "--state", str(state))
    assert done.code == Exit.NOT_FOUND
    assert "iteration 2 of run 'asking' has no questions" in " ".join(done.err.split())


def test_a_run_that_asks_nobody_is_told_so(tmp_path: Path) -> None:
    example_runs.save(tmp_path, example_runs.paused("other", f"file://{tmp_path}/store"))
    done = rlhfctl("annotations", "export", "other", "--iteration", "1", "--output", "out", "--state", str(tmp_path))
    assert done.code == Exit.USAGE
    assert "run 'other' asks nobody" in " ".join(done.err.split())


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_answers_are_imported_whatever_their_form_and_again_change_nothing(state: Path, ending: str) -> None:
    done = imported(state, write_answers(state / f"first{ending}", ALL[2:]), write_answers(state / f"second{ending}", ALL[:2]))
    assert (done.code, done.out) == (0, ""), done.err
    said = " ".join(done.err.split())
    assert "4 answers of 2 annotators: 3 of 3 pairs are answered, 1 of them without a majority" in said
    assert "Krippendorff's alpha, nominal): no two answers to compare" in said
    assert "the answers to iteration 1 are imported; no process drives the run now" in said
    [entry] = spec_of(state)["annotations"]
    table = pq.read_table(state / "store" / annotations_key(entry["digest"]))
    assert [tuple(row.values()) for row in table.to_pylist()] == sorted(ALL)
    again = imported(state, write_answers(state / "all.jsonl", [*reversed(ALL), ALL[0]]))
    assert again.code == 0
    assert "iteration 1 has these answers already: nothing is changed" in " ".join(again.err.split())
    assert spec_of(state)["annotations"] == [entry]


def test_other_answers_to_an_iteration_do_not_take_the_place_of_those_that_it_has(state: Path) -> None:
    assert imported(state, write_answers(state / "a.jsonl", ALL)).code == 0
    done = imported(state, write_answers(state / "b.jsonl", [(PAIRS[0], "eve", "B"), *ALL]))
    assert done.code == Exit.CONFLICT
    said = " ".join(done.err.split())
    assert "iteration 1 of run 'asking' has other answers" in said
    assert "delete the run and submit it again: it goes on from what is sealed, and asks for answers again" in said
    assert len(spec_of(state)["annotations"]) == 1
    assert len([*(state / "store" / "annotations").iterdir()]) == 1, "what is refused is not written"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("d" * 32, "ann", "A"), f"line 5: '{'d' * 32}' is no pair of this iteration"),
        ((PAIRS[0], "eve", "a"), "line 5: 'a' is no choice; write A, B or tie"),
        ((PAIRS[0], " ", "A"), "line 5: names no annotator"),
        ((PAIRS[0], "bob", "B"), f"line 5: bob answers B for {PAIRS[0]}, and A in"),
    ],
)
def test_an_answer_that_cannot_be_taken_is_named_with_its_row_and_nothing_is_imported(state: Path, row: Row, said: str) -> None:
    done = imported(state, write_answers(state / "a.jsonl", [*ALL, row]), partial=True)
    assert done.code == Exit.REFUSED
    assert said in " ".join(done.err.split())
    assert spec_of(state)["annotations"] == []
    assert not (state / "store" / "annotations").exists()


def test_too_few_answers_are_refused_with_their_counts_unless_somebody_says_so(tmp_path: Path) -> None:
    state = waiting(tmp_path, annotatorsPerPair=2, minAnswered=0.5)
    file = write_answers(state / "a.jsonl", ALL)
    done = imported(state, file)
    assert done.code == Exit.REFUSED
    said = " ".join(done.err.split())
    assert "1 of 3 pairs are answered; nothing is imported" in said
    assert "asks for 2 answers to a pair, and for 50% of the pairs (minAnswered); there are 4 answers of 2 annotators" in said
    assert spec_of(state)["annotations"] == []
    assert imported(state, file, partial=True).code == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "", "is of no known form"),
        ("a.jsonl", '{"pair_id": "a", "choice": "A"}\n', "line 1 has no annotator"),
        ("a.jsonl", "{\n", "line 1 is no JSON"),
        ("a.jsonl", "[]\n", "line 1 is no JSON object"),
        ("a.csv", "pair_id,annotator\na,b\n", "line 2 has no choice"),
        ("a.parquet", "no", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_is_wrong(state: Path, name: str, content: str, said: str) -> None:
    (state / name).write_text(content)
    done = imported(state, state / name)
    assert done.code == Exit.USAGE
    assert said in " ".join(done.err.split())


def test_agreement_is_told_where_annotators_can_be_compared(state: Path) -> None:
    both = [(pair, who, "B" if pair == PAIRS[0] else "A") for pair in PAIRS for who in ("ann", "bob")]
    done = imported(state, write_answers(state / "a.csv", both))
    assert "agreement of annotators (Krippendorff's alpha, nominal): 1.000" in " ".join(done.err.split())


def test_who_waits_for_the_run_is_told_that_it_waits_for_people_and_not_for_an_approval(state: Path) -> None:
    done = rlhfctl("wait", "asking", "--state", str(state))
    assert done.code == Exit.RUN_FAILED
    said = " ".join(done.err.split())
    assert "run 'asking' is paused and waits for people's answers" in said
    assert f"rlhfctl annotations import --state {state} asking --iteration 1 FILE" in said
    assert "approve" not in said


def test_what_is_printed_of_a_run_that_waits_takes_its_questions_out_when_it_is_pasted(state: Path) -> None:
    for looked in ("wait", "status"):
        done = rlhfctl(looked, "asking", "--state", "state with blanks", cwd=_beside(state))
        lines = (done.err if looked == "wait" else done.out).splitlines()
        [command] = [line.strip() for line in lines if "annotations export" in line and "`" not in line]
        program, *words = shlex.split(command[command.index("rlhfctl") :])
        assert program == "rlhfctl"
        exported = rlhfctl(*words, cwd=_beside(state))
        assert exported.code == 0, exported.err
        assert (_beside(state) / "asking-questions-1" / "questions.jsonl").exists()
        shutil.rmtree(_beside(state) / "asking-questions-1")


def test_a_run_that_has_its_answers_waits_for_nobody_but_a_process(state: Path) -> None:
    assert imported(state, write_answers(state / "a.jsonl", ALL)).code == 0
    said = " ".join(rlhfctl("wait", "asking", "--state", str(state)).err.split())
    assert "run 'asking' has not ended, and no process drives it" in said
    assert "annotations" not in rlhfctl("status", "asking", "--state", str(state)).out.replace("`rlhfctl annotations", "")


def test_a_run_that_has_ended_takes_no_answers(tmp_path: Path) -> None:
    state = waiting(tmp_path)
    file = state / "runs" / "asking" / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "phase": Phase.FAILED, "message": "Too few pairs."}))
    done = imported(state, write_answers(state / "a.jsonl", ALL))
    assert done.code == Exit.CONFLICT
    said = " ".join(done.err.split())
    assert "run 'asking' has ended (Failed), and takes no answers to iteration 1 any more" in said
    assert "Too few pairs." in said
    assert not (state / "store" / "annotations").exists()


def test_answers_that_reached_the_store_and_not_the_run_are_imported_again(state: Path) -> None:
    file = write_answers(state / "a.jsonl", ALL)
    before = (state / "runs" / "asking" / "run.yaml").read_text()
    assert imported(state, file).code == 0
    [entry] = spec_of(state)["annotations"]
    (state / "runs" / "asking" / "run.yaml").write_text(before)
    assert imported(state, file).code == 0
    assert spec_of(state)["annotations"] == [entry]
    (state / "store" / annotations_key(entry["digest"])).unlink()
    again = imported(state, file)
    assert "nothing is changed" in " ".join(again.err.split())
    assert (state / "store" / annotations_key(entry["digest"])).exists(), "what label says to do brings them back"


def test_of_two_who_import_at_once_the_second_is_refused_and_takes_nothing_back(state: Path) -> None:
    source = LocalSource(LocalState(state))
    seen = source.load("asking")
    steering.annotate(source, seen, Annotations(iteration=1, digest="a" * 64))
    steering.annotate(source, seen, Annotations(iteration=1, digest="a" * 64))
    with pytest.raises(Conflict, match="iteration 1 of run 'asking' has other answers"):
        steering.annotate(source, seen, Annotations(iteration=1, digest="b" * 64))
    assert [entry["digest"] for entry in spec_of(state)["annotations"]] == ["a" * 64]


def test_answers_to_other_questions_are_told_to_be_that(state: Path) -> None:
    done = imported(state, write_answers(state / "a.jsonl", [("e" * 32, "ann", "A"), ("f" * 32, "ann", "B")]))
    assert done.code == Exit.REFUSED
    assert "they answer the questions of another run or iteration" in " ".join(done.err.split())


def test_annotators_who_differ_are_both_taken_and_their_agreement_is_told(state: Path) -> None:
    rows = [(PAIRS[0], "ann", "A"), (PAIRS[0], "bob", "B"), (PAIRS[1], "ann", "A"), (PAIRS[2], "ann", "B")]
    said = " ".join(imported(state, write_answers(state / "a.csv", rows)).err.split())
    assert "3 of 3 pairs are answered, 1 of them without a majority" in said
    assert "agreement of annotators (Krippendorff's alpha, nominal): 0.000" in said


def test_rows_without_a_choice_are_no_answers_and_are_told(state: Path) -> None:
    done = imported(state, write_answers(state / "a.csv", [*ALL, (PAIRS[1], "bob", ""), (PAIRS[2], "", " ")]))
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "4 answers of 2 annotators" in said
    assert "2 rows have no choice, and are no answers" in said


def _beside(state: Path) -> Path:
    """A folder with the state in a folder whose name must be quoted."""
    if not (state / "state with blanks").exists():
        (state / "state with blanks").symlink_to(state)
    return state
