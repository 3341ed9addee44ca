"""What sft and reward are trained on: made once, the same however many processes make it, and told of row by row."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import SftWork
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import open_store
from rlhf_trainer.data.examples import Examples
from rlhf_trainer.data.sources import open_rows, resolve_revision
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.prepared.artifact import find_prepared, prepared
from rlhf_trainer.training.prepared.pool import in_order
from rlhf_trainer.training.prepared.prepare import PIECE, Preparation, Preprocessor
from rlhf_trainer.training.prepared.recipe import Recipe, whole
from support.conversations import assistant, llama3, qwen2_5, user
from support.documents import blocks
from support.preflights import knowing, problems, run
from support.stages import config_of, context_of
from support.waiting import wait_until

STORAGE = Storage(url="file:///nowhere")


def conversations(count: int, **others: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"messages": [user(f"question {n}"), assistant(f"answer {n} " * (n % 5 + 1))]} for n in range(count)
    ]
    for name, row in others.items():
        rows[int(name.removeprefix("row_")) - 1] = row
    return rows


def written(folder: Path, name: str, rows: Sequence[dict[str, Any]], **more: Any) -> DataSource:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(name=name, uri=f"file://{file}", **more)


def recipe_of(*data: DataSource, stage: StageName = StageName.SFT) -> Recipe:
    return Recipe(stage, data, None, whole(512), 0)


def prepare(recipe: Recipe, under: Vocabulary, file: Path, processes: int = 1) -> Preparation:
    sets = [(source, open_rows(source, file.parent / "inputs", STORAGE)) for source in recipe.data]
    return Preprocessor(recipe, under, None).prepare(sets, file, Progress(None), processes=processes)


def test_the_file_is_the_same_however_many_processes_make_it(tmp_path: Path) -> None:
    half = {"messages": [user("only asked")]}
    recipe = recipe_of(
        written(tmp_path, "a", conversations(3 * PIECE + 7, row_2=half, row_700=half)),
        written(tmp_path, "b", conversations(PIECE), weight=0.25),
    )
    alone = prepare(recipe, llama3(), tmp_path / "alone.arrow")
    together = prepare(recipe, llama3(), tmp_path / "together.arrow", processes=3)
    assert (tmp_path / "alone.arrow").read_bytes() == (tmp_path / "together.arrow").read_bytes()
    assert alone == together
    assert (
        alone.tallies["a"]
        .told()
        .startswith(f"file://{tmp_path}/a.jsonl: 2 of 775 rows cannot be used (2, the first of them row 2:")
    )
    assert alone.counts["unusable/noAnswer"] == 2
    assert alone.examples == len(Examples(tmp_path / "alone.arrow")) == 775 - 2 + 64


def test_each_example_says_which_row_it_is_of(tmp_path: Path) -> None:
    import pyarrow as pa

    recipe = recipe_of(written(tmp_path, "a", conversations(300, row_2={"messages": [user("only asked")]})))
    prepare(recipe, llama3(), tmp_path / "examples.arrow")
    table = pa.ipc.open_file(str(tmp_path / "examples.arrow")).read_all()
    assert table["row"].to_pylist() == [1, *range(3, 301)]
    assert set(table["source"].to_pylist()) == {"a"}


def test_a_mixture_takes_rows_by_weight_and_the_same_ones_again(tmp_path: Path) -> None:
    rows = conversations(400)
    recipe = recipe_of(written(tmp_path, "heavy", rows, weight=2.0), written(tmp_path, "light", rows, weight=0.5))
    heavy, light = (recipe.drawn(source, 400) for source in recipe.data)
    assert heavy is None
    assert light is not None
    assert sum(light) == 100
    assert recipe.drawn(recipe.data[1], 400) == light
    assert replace(recipe, seed=1).drawn(recipe.data[1], 400) != light
    # As a list is shuffled: trainings that began before this was an array go on with the same rows.
    import random

    order = list(range(400))
    random.Random("0/light").shuffle(order)
    assert {place for place, taken in enumerate(light) if taken} == set(order[:100])


def test_a_row_behind_the_first_thousand_is_refused_by_its_number(tmp_path: Path) -> None:
    recipe = recipe_of(written(tmp_path, "a", conversations(1300, row_1234={"messages": 3}), max_unusable_rows=0.0))
    with pytest.raises(ConfigurationProblem, match=r"a\.jsonl: 1 of 1300 rows cannot be used .*row 1234: .*maxUnusableRows"):
        prepare(recipe, llama3(), tmp_path / "examples.arrow", processes=2)


def test_of_a_mixture_the_share_that_cannot_be_rendered_is_one_of_the_rows_that_it_draws(tmp_path: Path) -> None:
    """A hundredth of a set is drawn, and half of that is refused: half of the data, though a two-hundredth of the rows."""
    rows = conversations(400)
    light = written(tmp_path, "light", rows, weight=0.01)
    drawn = recipe_of(written(tmp_path, "heavy", rows), light).drawn(light, 400)
    assert drawn is not None
    for place in [place for place, taken in enumerate(drawn) if taken][:2]:
        rows[place] = {"messages": [user("a"), assistant("closed already<|eot_id|>")]}
    recipe = recipe_of(written(tmp_path, "heavy", conversations(400)), written(tmp_path, "light", rows, weight=0.01))
    with pytest.raises(ConfigurationProblem, match=r"light\.jsonl: 2 of 400 rows cannot be used .*maxUnusableRows"):
        prepare(recipe, llama3(), tmp_path / "examples.arrow")


def test_the_first_rows_are_refused_for_what_all_would_be(tmp_path: Path) -> None:
    """A share of all rows is allowed: what the first of them have may be less than that, or already more."""
    half = {"messages": [user("only asked")]}
    rows = conversations(2000, row_1=half, row_2=half)
    for share, refused in ((0.001, False), (0.0009, True)):
        source = written(tmp_path, "a", rows, max_unusable_rows=share)
        first = Preprocessor(recipe_of(source), llama3(), None)
        opened = open_rows(source, tmp_path / "inputs", STORAGE)
        if not refused:
            assert first.try_first(source, opened, 1000).examples == 998
            continue
        with pytest.raises(ConfigurationProblem, match="2 of 1000 rows cannot be used"):
            first.try_first(source, opened, 1000)


def test_a_recipe_is_known_by_all_that_decides_its_examples(tmp_path: Path) -> None:
    pinned = DataSource(name="d", uri="hf://owner/name", revision="a" * 40)
    recipe, under = recipe_of(pinned), llama3()
    others = [
        replace(recipe, limits=whole(511)),
        replace(recipe, seed=1),
        replace(recipe, min_margin=0.5),
        replace(recipe, stage=StageName.REWARD),
        replace(recipe, data=[pinned.model_copy(update={"revision": "b" * 40})]),
        replace(recipe, data=[pinned, pinned.model_copy(update={"name": "e"})]),
    ]
    known = [each.fingerprint(under) for each in (recipe, *others)] + [recipe.fingerprint(qwen2_5())]
    assert len(set(known)) == len(known)
    assert None not in known
    private = DataSource.model_validate({**pinned.to_wire(), "credentials": {"secretRef": {"name": "token"}}})
    assert recipe_of(private).fingerprint(under) == recipe.fingerprint(llama3())
    assert recipe_of(DataSource(name="d", uri="hf://owner/name")).fingerprint(under) is None


def test_preflight_makes_them_and_a_second_one_finds_them(
    world: Path, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rlhf_trainer")
    run(world, storage, tmp_path / "one")
    made = sorted(info.key for info in open_store(storage).list(f"{ArtifactKind.TOKENS}/") if info.key.endswith("manifest.json"))
    assert len(made) == 2
    assert caplog.text.count("rows are rendered and tokenised") == 2
    run(world, storage, tmp_path / "two")
    assert caplog.text.count("rows are rendered and tokenised") == 2


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"half")], ids=["removed", "damaged"])
def test_prepared_data_that_somebody_has_removed_in_part_are_made_again(
    world: Path, storage: Storage, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    revision = resolve_revision(DataSource(name="d", uri=f"file://{world}/demonstrations.parquet"), storage)
    data = [{"name": "demonstrations", "uri": f"file://{world}/demonstrations.parquet", "revision": revision}]
    work = sft_work(world, data)
    context = context_of(config_of(work, storage, iteration=None), tmp_path / "s")
    first = prepared(context, Recipe.of(work, 0), vocabulary_in(world), lambda: None)
    whole = first.file.read_bytes()
    (kept,) = (file for file in Path(storage.url.removeprefix("file://")).rglob("examples.arrow"))
    kept.chmod(0o600)
    damage(kept)
    again = context_of(config_of(work, storage, iteration=None), tmp_path / "again")
    found = prepared(again, Recipe.of(work, 0), vocabulary_in(world), lambda: None)
    assert found.ref == first.ref
    assert found.file.read_bytes() == whole
    assert list(Examples(found.file)) == list(Examples(first.file))


def test_what_is_trained_on_is_shown_by_the_lines_in_the_documents(
    world: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(world, storage, tmp_path / "s")
    store = open_store(storage)
    (file,) = (tmp_path / "s").glob("sft-examples.arrow")
    sealed = [info for info in store.list(f"{ArtifactKind.TOKENS}/") if info.key.endswith("/examples.arrow")]
    assert file.stat().st_size in {info.size for info in sealed}
    file.rename(tmp_path / "examples.arrow")
    (tmp_path / "model").symlink_to(world / "model")
    monkeypatch.chdir(tmp_path)
    (code,) = (block.text for block in blocks("python") if "examples.arrow" in block.text)
    exec(code, {})
    assert re.fullmatch(r"demonstrations 1 \['[a-z ]+<\|end\|>'\]\n", capsys.readouterr().out)


def test_preflight_refuses_a_row_that_nobody_had_looked_at(world: Path, storage: Storage, tmp_path: Path) -> None:
    data = written(tmp_path, "a", conversations(1300, row_1234={"messages": 3}), max_unusable_rows=0.0)
    known = knowing(world, tmp_path / "world", r"question|answer|\d+")
    told = problems(known, storage, tmp_path / "s", sft={"data": [data.to_wire()], "optimization": {"maxSteps": 1}})
    assert told.startswith("preflight found 1 problem:\n1. ")
    assert "row 1234" in told


def test_preflight_refuses_data_of_which_nothing_is_left(world: Path, storage: Storage, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "a"}] * 3
    training = {"data": [written(tmp_path, "a", rows).to_wire()]}
    told = problems(world, storage, tmp_path / "s", reward={"type": "BradleyTerry", "bradleyTerry": {"train": training}})
    assert "reward.bradleyTerry.train.data: there is nothing to train on (" in told
    assert "pairsEqual 3" in told


def test_data_that_may_change_are_not_kept(world: Path, storage: Storage, tmp_path: Path) -> None:
    work = sft_work(world, [{"name": "demonstrations", "uri": f"file://{world}/demonstrations.parquet"}])
    context = context_of(config_of(work, storage, iteration=None), tmp_path / "s")
    found = prepared(context, Recipe.of(work, 0), vocabulary_in(world), lambda: None)
    assert found.ref is None
    assert found.examples == len(Examples(found.file)) == 384
    assert find_prepared(context, Recipe.of(work, 0), vocabulary_in(world)) is None
    assert list(open_store(storage).list(f"{ArtifactKind.TOKENS}/")) == []


def sft_work(world: Path, data: list[dict[str, Any]]) -> SftWork:
    return SftWork.model_validate(
        {
            "policy": {"model": {"source": {"uri": f"file://{world}/model"}}, "dtype": "float32"},
            "data": data,
            "optimization": {"learningRate": 1e-3, "globalBatchSize": 4},
            "maxLength": 64,
            "deepspeed": {},
        }
    )


def vocabulary_in(world: Path) -> Vocabulary:
    from rlhf_trainer.models.vocabulary import load_vocabulary

    return load_vocabulary(world / "model", None, [], trust_remote_code=False)


def test_results_come_in_the_order_of_the_pieces_and_so_does_what_is_raised() -> None:
    def work(piece: int) -> int:
        if piece in (40, 41):
            raise ConfigurationProblem(f"piece {piece}", reason="Odd")
        return -piece

    found: list[int] = []
    with pytest.raises(ConfigurationProblem, match="piece 40") as raised:
        found += in_order(work, range(100), 3)
    assert raised.value.reason == "Odd"
    assert list(in_order(work, range(40), 3)) == [-piece for piece in range(40)]


def test_an_exception_that_no_process_can_be_handed_is_told_all_the_same() -> None:
    class OddError(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(f"{one} {two}")

    def work(piece: int) -> int:
        raise OddError("not", str(piece))

    with pytest.raises(ApplicationProblem, match="OddError: not 0"):
        list(in_order(work, range(4), 2))


def test_long_rows_are_worked_on_in_smaller_pieces(tmp_path: Path) -> None:
    import pyarrow as pa

    long = {"messages": [user("question"), assistant("word " * 60_000)]}
    recipe = recipe_of(written(tmp_path, "a", [*conversations(300), *[long] * 8]))
    prepare(recipe, llama3(), tmp_path / "examples.arrow")
    opened = pa.ipc.open_file(str(tmp_path / "examples.arrow"))
    sizes = [opened.get_batch(number).num_rows for number in range(opened.num_record_batches)]
    assert sizes == [PIECE, 48, 4]


def test_a_row_that_is_nested_without_end_costs_its_row_whatever_the_number_of_processes(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    rows = conversations(600, row_3={**conversations(1)[0], "other": deep})
    recipe = recipe_of(written(tmp_path, "a", rows, max_unparsable_rows=1))
    for processes in (1, 2):
        found = prepare(recipe, llama3(), tmp_path / f"{processes}.arrow", processes)
        assert "row 3: line 3 of a.jsonl is nested more than 100 deep" in found.tallies["a"].told()


def test_what_a_machine_runs_into_is_no_fault_of_the_manifest(
    world: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Preprocessor, "prepare", full)
    with pytest.raises(ApplicationProblem) as raised:
        run(world, storage, tmp_path / "s")
    assert raised.value.reason == "DiskFull"


def test_a_process_of_the_pool_that_is_killed_is_told_of() -> None:
    def work(piece: int) -> int:
        if piece == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece

    with pytest.raises(ApplicationProblem, match="was killed, most likely for memory") as raised:
        list(in_order(work, range(10), 2))
    assert raised.value.reason == "OOMKilled"


def test_no_process_of_the_pool_outlives_the_stage(tmp_path: Path) -> None:
    script = f"""
import os, time
from pathlib import Path
from rlhf_trainer.training.prepared.pool import in_order
def work(piece):
    Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(600)
list(in_order(work, range(4), 2))
"""
    stage = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "two processes at work")
    finally:
        stage.kill()
        stage.wait()
    wait_until(lambda: not [path for path in tmp_path.iterdir() if _runs(path.name)], "the end of the pool")


def _runs(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_data_set_of_which_a_mixture_draws_no_row_is_refused(tmp_path: Path) -> None:
    light = written(tmp_path, "light", conversations(40), weight=0.01)
    with pytest.raises(ConfigurationProblem, match=r"no row of file://.*light\.jsonl is drawn: its weight, 0\.01, is too small"):
        prepare(recipe_of(written(tmp_path, "heavy", conversations(40)), light), llama3(), tmp_path / "examples.arrow")
