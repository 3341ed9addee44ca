"""Which pairs stay: a sample that no order of files changes, and what other pairs make superfluous."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.labeler import PreferenceCleaning, RewardHeldOut
from rlhf_api.resource.storage import Storage
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import open_store
from rlhf_trainer.data.examples import EXAMPLES, Examples
from rlhf_trainer.data.sources import open_rows
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.prepared.prepare import Preparation, Preprocessor
from rlhf_trainer.training.prepared.recipe import Recipe, whole
from rlhf_trainer.training.prepared.selection import HELD_OUT, Selection, sample
from support.conversations import llama3
from support.preflights import run as preflight

STORAGE = Storage(url="file:///nowhere")
ALL = PreferenceCleaning(drop_duplicates=True, drop_contradictions=True)


def pair(prompt: object, chosen: str, rejected: str, **more: object) -> dict[str, object]:
    return {"prompt": f"question {prompt}", "chosen": chosen, "rejected": rejected, **more}


def written(folder: Path, name: str, rows: Sequence[dict[str, Any]], **more: Any) -> DataSource:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(name=name, uri=f"file://{file}", **more)


def recipe_of(*data: DataSource, cleaning: PreferenceCleaning | None = None) -> Recipe:
    return Recipe(StageName.REWARD, data, None, whole(512), 0, cleaning=cleaning)


def prepare(recipe: Recipe, file: Path, processes: int = 1) -> Preparation:
    sets = [(source, open_rows(source, file.parent / "inputs", STORAGE)) for source in recipe.data]
    return Preprocessor(recipe, llama3(), None).prepare(sets, file, Progress(None), processes=processes)


def rows_of(file: Path) -> list[tuple[str, int]]:
    table = pa.ipc.open_file(str(file)).read_all()
    return list(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))


def test_of_equal_pairs_the_first_stays_across_sets_and_the_first_that_goes_is_named(tmp_path: Path) -> None:
    first = written(tmp_path, "first", [pair(1, "a", "b"), pair(2, "a", "b"), pair(1, "a", "b")])
    second = written(tmp_path, "second", [pair(2, "a", "b"), pair(2, "a", "c"), pair(1, "a ", "b")])
    found = prepare(recipe_of(first, second, cleaning=PreferenceCleaning(drop_duplicates=True)), tmp_path / "examples.arrow")
    assert rows_of(tmp_path / "examples.arrow") == [("first", 1), ("first", 2), ("second", 2)]
    assert found.counts["pairsDuplicate"] == 3, "the template trims an answer, so that two are one"
    assert found.examples == 3
    [told] = found.left_out
    assert told.startswith(f"3 pairs are left out, the first of them file://{tmp_path}/first.jsonl: row 3: the same prompt")
    assert not list(tmp_path.glob("*.candidates"))


def test_of_pairs_that_contradict_each_other_none_stays_however_often_each_is_there(tmp_path: Path) -> None:
    rows = [pair(1, "a", "b"), pair(2, "a", "b"), pair(1, "b", "a"), pair(1, "a", "b"), pair(3, "b", "a")]
    source = written(tmp_path, "a", rows)
    found = prepare(recipe_of(source, cleaning=ALL), tmp_path / "examples.arrow")
    assert rows_of(tmp_path / "examples.arrow") == [("a", 2), ("a", 5)]
    assert found.counts["pairsContradictory"] == 3
    assert "pairsDuplicate" not in found.counts
    assert "first of them" in found.left_out[0]
    assert "row 1: " in found.left_out[0]


def test_which_pairs_of_a_prompt_stay_is_the_same_in_any_order(tmp_path: Path) -> None:
    rows = [pair(n % 7, f"good {n}", f"bad {n}") for n in range(70)]
    cleaning = PreferenceCleaning(max_pairs_per_prompt=3)

    def kept(order: list[dict[str, object]], name: str) -> Any:
        found = prepare(recipe_of(written(tmp_path, name, order), cleaning=cleaning), tmp_path / f"{name}.arrow")
        assert found.counts["pairsOverMaxPerPrompt"] == 49
        return sorted((example.prompt, example.completions) for example in Examples(tmp_path / f"{name}.arrow"))

    assert len(kept(rows, "a")) == 21
    assert kept(rows, "a") == kept(rows[::-1], "b")


def test_without_cleaning_equal_pairs_stay_and_nothing_is_counted(tmp_path: Path) -> None:
    source = written(tmp_path, "a", [pair(1, "a", "b"), pair(1, "a", "b"), pair(1, "b", "a")])
    found = prepare(recipe_of(source), tmp_path / "examples.arrow")
    assert found.examples == 3
    assert not set(found.counts) & {"pairsDuplicate", "pairsContradictory", "pairsOverMaxPerPrompt"}


def test_the_file_is_the_same_however_many_processes_make_it(tmp_path: Path) -> None:
    rows = [pair(n % 300, "a", "b" if n % 3 else "c") for n in range(900)]
    recipe = recipe_of(written(tmp_path, "a", rows), cleaning=ALL)
    alone, together = (prepare(recipe, tmp_path / f"{processes}.arrow", processes) for processes in (1, 3))
    assert alone == together
    assert (tmp_path / "1.arrow").read_bytes() == (tmp_path / "3.arrow").read_bytes()
    assert pa.ipc.open_file(str(tmp_path / "1.arrow")).schema == EXAMPLES


def test_a_cap_draws_the_same_rows_in_whatever_order_they_come(tmp_path: Path) -> None:
    rows = [pair(n, f"good {n}", "bad") for n in range(500)]
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)

    def drawn(order: list[dict[str, object]], seed: int = 0) -> Any:
        source = written(tmp_path, "a", order, max_examples=40)
        found = prepare(replace(recipe_of(source), seed=seed), tmp_path / "examples.arrow")
        assert found.counts["drawn/a"] == found.examples == 40
        return sorted((example.prompt, example.completions) for example in Examples(tmp_path / "examples.arrow"))

    assert drawn(rows) == drawn(shuffled)
    assert drawn(rows) != drawn(rows, seed=1)


def test_a_cap_above_the_rows_takes_all_and_weights_count_beside_it(tmp_path: Path) -> None:
    rows = [pair(n, f"good {n}", "bad") for n in range(100)]
    heavy = written(tmp_path, "heavy", rows, max_examples=1000)
    light = written(tmp_path, "light", rows, weight=0.5, max_examples=70)
    lighter = written(tmp_path, "lighter", rows, weight=0.5, max_examples=10)
    found = prepare(recipe_of(heavy, light, lighter), tmp_path / "examples.arrow")
    assert {name: count for name, count in found.counts.items() if name.startswith("drawn/")} == {
        "drawn/light": 50,
        "drawn/lighter": 10,
    }
    assert found.examples == 160


def test_of_equal_rows_a_sample_takes_as_many_as_it_wants() -> None:
    taken = sample([{"a": 1}] * 9, 4, "s")
    assert list(taken) == [1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert sum(sample([{"a": 1}], 0, "s")) == 0


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_decide_is_decided(rows: int) -> None:
    cleaning = PreferenceCleaning(drop_duplicates=True, drop_contradictions=True, max_pairs_per_prompt=1)
    keys = np.zeros(rows, dtype=np.uint64)
    assert Selection(cleaning, None, 0).decide(keys, keys, np.zeros(rows, dtype=np.uint8)).tolist() == [0] * rows


def test_what_is_asked_for_is_in_the_recipe_and_what_is_not_leaves_it_as_it_was() -> None:
    pinned = DataSource(name="d", uri="hf://owner/name", revision="a" * 40)
    recipe = recipe_of(pinned)
    others = [replace(recipe, cleaning=ALL), recipe_of(pinned.model_copy(update={"max_examples": 5}))]
    assert len({each.fingerprint(llama3()) for each in (recipe, *others)}) == 3
    assert "cleaning" not in recipe.to_wire(llama3())
    assert "maxExamples" not in recipe.to_wire(llama3())["data"][0]


# --- what a reward model is measured by ---


def held_out_of(found: Preparation) -> list[tuple[str, int, str | None, int]]:
    assert found.held_out is not None
    table = pa.ipc.open_file(str(found.held_out)).read_all()
    assert table.schema == HELD_OUT
    return list(zip(*(table[name].to_pylist() for name in ("source", "row", "subset", "asked")), strict=True))


def test_all_pairs_of_a_prompt_are_on_one_side_whatever_set_they_are_of(tmp_path: Path) -> None:
    """OpenRLHF issue 1089, and every split by rows of a set whose prompts come back."""
    first = written(tmp_path, "first", [pair(n % 50, f"good {n}", "bad") for n in range(150)])
    second = written(tmp_path, "second", [pair(f" {n} ", "good", f"bad {n}") for n in range(50)])
    recipe = replace(recipe_of(first, second), held_out_pairs=RewardHeldOut(fraction=0.3))
    found = prepare(recipe, tmp_path / "examples.arrow")
    held = {(source, row) for source, row, _, _ in held_out_of(found)}
    trained = set(rows_of(tmp_path / "examples.arrow"))
    assert len(held) + len(trained) == 200
    assert not held & trained

    def asked(rows: set[tuple[str, int]]) -> set[int]:
        return {(row - 1) % 50 for _, row in rows}

    assert not asked(held) & asked(trained)
    assert 8 <= len(asked(held)) <= 22
    assert found.counts["pairsHeldOut"] == len(held) == 4 * len(asked(held))
    assert found.examples == len(trained)


def test_so_many_pairs_at_least_are_held_out_and_whole_prompts(tmp_path: Path) -> None:
    source = written(tmp_path, "a", [pair(n % 20, f"good {n}", "bad") for n in range(60)])
    recipe = replace(recipe_of(source), held_out_pairs=RewardHeldOut(size=10))
    assert prepare(recipe, tmp_path / "examples.arrow").counts["pairsHeldOut"] == 12
    rows = [row for _, row, _, _ in held_out_of(prepare(recipe, tmp_path / "examples.arrow"))]
    again = [row for _, row, _, _ in held_out_of(prepare(replace(recipe, seed=1), tmp_path / "examples.arrow"))]
    assert rows != again


def test_what_is_held_out_is_cleaned_as_the_rest_is(tmp_path: Path) -> None:
    source = written(tmp_path, "a", [pair(n % 20, "good", "bad") for n in range(60)])
    recipe = replace(recipe_of(source, cleaning=ALL), held_out_pairs=RewardHeldOut(size=5))
    found = prepare(recipe, tmp_path / "examples.arrow")
    assert (found.counts["pairsHeldOut"], found.counts["pairsDuplicate"], found.examples) == (5, 40, 15)


def test_of_a_set_of_its_own_no_prompt_is_trained_on(tmp_path: Path) -> None:
    source = written(tmp_path, "a", [pair(n, "good", "bad") for n in range(10)])
    own = written(tmp_path, "bench", [pair(n, "better", "worse", subset="math" if n else None) for n in (0, 3, 30)], weight=0.1)
    recipe = replace(recipe_of(source), held_out_pairs=RewardHeldOut(data=own))
    sets = [(each, open_rows(each, tmp_path / "inputs", STORAGE)) for each in recipe.sources]
    found = Preprocessor(recipe, llama3(), None).prepare(sets, tmp_path / "examples.arrow", Progress(None), processes=1)
    assert [held[:3] for held in held_out_of(found)] == [("bench", 1, None), ("bench", 2, "math"), ("bench", 3, "math")]
    assert found.counts["pairsOfHeldOutPrompt"] == 2
    assert [row for _, row in rows_of(tmp_path / "examples.arrow")] == [2, 3, 5, 6, 7, 8, 9, 10]
    [told] = found.left_out
    assert "the first of them file://" in told
    assert "a.jsonl: row 1: its prompt is one of heldOut.data" in told
    assert found.tallies["bench"].columns_not_read == []


def test_that_nothing_is_held_out_is_no_measurement(tmp_path: Path) -> None:
    source = written(tmp_path, "a", [pair(1, "good", "bad")])
    recipe = replace(recipe_of(source), held_out_pairs=RewardHeldOut(fraction=1e-9))
    with pytest.raises(ConfigurationProblem, match=r"heldOut: none of 1 pairs is held out"):
        prepare(recipe, tmp_path / "examples.arrow")


def test_preflight_pins_the_set_of_its_own_and_prepares_it_beside_what_is_trained_on(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    own = tmp_path / "bench.parquet"
    pq.write_table(pq.read_table(world / "preferences.parquet").slice(0, 20), own)
    data = [{"name": "preferences", "uri": f"file://{world}/preferences.parquet"}]
    training = {"data": data, "heldOut": {"data": {"name": "bench", "uri": f"file://{own}"}}}
    found = preflight(world, storage, tmp_path / "s", reward={"type": "BradleyTerry", "bradleyTerry": {"train": training}})
    assert "reward.bradleyTerry.train.heldOut.data" in found.resolved
    assert any("its prompt is one of heldOut.data" in warning for warning in found.warnings)
    sealed = [info.key for info in open_store(storage).list(f"{ArtifactKind.TOKENS}/") if info.key.endswith("held-out.arrow")]
    assert len(sealed) == 1
