"""The file of examples gives back what was written, and processes that map it share it."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_trainer.data.examples import Example, Examples, ExamplesWriter, to_batch, write_examples
from support.own_memory import growth_by_examples

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=6)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    completions = draw(st.lists(IDS, min_size=1, max_size=3))
    flags = [draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))) for ids in completions]
    reference = draw(st.just(()) | st.tuples(*[st.floats(-50, 0)] * len(completions)))
    return Example(draw(IDS), completions, draw(st.sampled_from([None, flags])), reference)


@given(st.lists(st.lists(examples(), max_size=4), max_size=3))
def test_what_is_written_is_read(batches: list[list[Example]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.arrow"
        writer = ExamplesWriter(file)
        for batch in batches:
            writer.add(to_batch(batch, "d"))
        writer.close()
        found, whole = Examples(file), [example for batch in batches for example in batch]
        assert list(found) == whole
        assert [found[place] for place in range(-len(whole), len(whole))] == whole + whole
        assert found[1:3] == whole[1:3]
        assert found.most_tokens == max((example.tokens for example in whole), default=0)
        assert found.longest == max((example.longest for example in whole), default=0)
        for place in (len(whole), -len(whole) - 1):
            with pytest.raises(IndexError):
                found[place]


def test_many_are_written_in_batches(tmp_path: Path) -> None:
    whole = [Example([number], [[number + 1, number + 2]]) for number in range(2500)]
    assert write_examples(tmp_path / "examples.arrow", iter(whole)) == 2500
    found = Examples(tmp_path / "examples.arrow")
    assert [found[place] for place in (0, 1023, 1024, 2047, 2048, 2499)] == [whole[p] for p in (0, 1023, 1024, 2047, 2048, 2499)]
    assert list(found) == whole


def test_processes_that_read_the_same_file_share_its_memory(tmp_path: Path) -> None:
    """Pages that are a process's own grow by less than the file has: 8 MB of ids, in 4 processes."""
    file = tmp_path / "examples.arrow"
    write_examples(tmp_path / "small.arrow", [Example([1], [[2]])])
    write_examples(file, (Example([], [[7] * 4096]) for _ in range(512)))
    assert file.stat().st_size > 8 * 2**20
    # One that dies ends the test; a multiprocessing.Pool would wait for it for ever.
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        grown = list(pool.map(growth_by_examples, [str(file)] * 4, [512 * 4096] * 4))
    assert max(grown) < 4 * 2**20, grown
