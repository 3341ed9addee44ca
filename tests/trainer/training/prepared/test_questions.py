"""What a pairwise preference model is trained on: the question that its labeler asks, and its answer's token alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.labeler import PairOrders, PreferenceCleaning, RewardHeldOut
from rlhf_api.resource.storage import Storage
from rlhf_api.words import StageName
from rlhf_trainer.data.examples import Example, Examples
from rlhf_trainer.data.sources import open_rows
from rlhf_trainer.forward.rows import build_batch
from rlhf_trainer.labelers.pairwise.labeler import PairwiseLabeler
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.progress import Progress
from rlhf_trainer.training.objectives import SupervisedObjective
from rlhf_trainer.training.prepared.prepare import Preparation, Preprocessor
from rlhf_trainer.training.prepared.recipe import Recipe, whole
from rlhf_trainer.training.prepared.selection import HELD_OUT_QUESTIONS
from support.conversations import assistant, llama3, user
from support.tiny_models import load, save_preference_model

STORAGE = Storage(url="file:///nowhere")
#: With which RLHFlow renders a prompt into the question (RLHF-Reward-Modeling, pair-pm/process_pair_data.py).
PLAIN = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)


def pair(prompt: object, chosen: str, rejected: str, **more: object) -> dict[str, object]:
    return {"prompt": f"question {prompt}", "chosen": chosen, "rejected": rejected, **more}


def written(folder: Path, name: str, rows: Sequence[dict[str, Any]], **more: Any) -> DataSource:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(name=name, uri=f"file://{file}", **more)


def recipe_of(*data: DataSource, orders: PairOrders = PairOrders.DRAWN, max_length: int = 512, **more: Any) -> Recipe:
    return Recipe(StageName.REWARD, data, None, whole(max_length), 0, orders=orders, **more)


def prepare(recipe: Recipe, file: Path, processes: int = 1) -> Preparation:
    sets = [(source, open_rows(source, file.parent / "inputs", STORAGE)) for source in recipe.sources]
    return Preprocessor(recipe, llama3(), None).prepare(sets, file, Progress(None), processes=processes)


def examples_of(folder: Path, rows: Sequence[dict[str, Any]], **more: Any) -> list[Example]:
    prepare(recipe_of(written(folder, "d", rows, max_unusable_rows=0.9), **more), folder / "made")
    return list(Examples(folder / "made"))


def asked(example: Example) -> tuple[str, str]:
    """The question and its answer, as text."""
    tokenizer = llama3().tokenizer
    return tokenizer.decode(example.prompt), tokenizer.decode(example.completions[0])


def test_a_pair_is_trained_on_as_its_makers_wrote_it_and_as_the_labeler_asks(tmp_path: Path) -> None:
    turns = [user("What is it?"), assistant("A bird."), user("Which one?\n\nSay it in one word. ")]
    chosen, rejected = "A tit.\n\n", "I cannot\n\nsay that."
    row = {"chosen": [*turns, assistant(chosen)], "rejected": [*turns, assistant(rejected)]}
    found = examples_of(tmp_path, [row], orders=PairOrders.BOTH)
    tokenizer = llama3().tokenizer
    context = tokenizer.apply_chat_template(turns, chat_template=PLAIN, tokenize=False)
    labeler = PairwiseLabeler.load(save_preference_model(tmp_path / "model"))
    for example, (first, second), answer in zip(found, ((chosen, rejected), (rejected, chosen)), "AB", strict=True):
        # The authors' code, word for word; BOS is taken out as they take it out.
        prompt = f"[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \n"
        text = tokenizer.apply_chat_template([user(prompt)], add_generation_prompt=True, tokenize=False)
        assert list(example.prompt) == tokenizer.encode(text.replace(tokenizer.bos_token, ""), add_special_tokens=False)
        assert [list(ids) for ids in example.completions] == [tokenizer.encode(answer, add_special_tokens=False)]
        assert list(example.prompt) == labeler.asked_ids(turns, first, second)
        assert example.completions[0][0] == labeler.answers["AB".index(answer)]


def test_the_loss_is_the_answers_alone_and_is_read_where_the_labeler_reads(tmp_path: Path) -> None:
    """OpenRLHF/OpenRLHF#973: a mask that was shifted twice left out an answer's first token, which is all that there is here."""
    found = examples_of(tmp_path, [pair(n, "yes, it is", "no") for n in range(4)])
    assert [example.counted_tokens for example in found] == [1] * 4
    model = load(save_preference_model(tmp_path / "model"))
    from rlhf_trainer.models.heads import use_language_head

    use_language_head(model)
    with torch.no_grad():
        expected = sum(
            -model.model(torch.tensor([list(e.prompt)]))
            .last_hidden_state[0, -1]
            .matmul(model.lm_head.weight.T)
            .log_softmax(-1)[e.completions[0][0]]
            for e in found
        )
        batch = build_batch([found])
        assert batch.targets.tolist() == [example.completions[0][0] for example in found]
        loss = SupervisedObjective()(model, batch).loss
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)


def test_one_order_of_each_pair_is_drawn_by_seed_and_pair_and_not_by_which_is_chosen(tmp_path: Path) -> None:
    rows = [pair(n, f"yes {n}", f"no {n}") for n in range(200)]
    found = [asked(example) for example in examples_of(tmp_path, rows)]
    share = sum(answer == "A" for _, answer in found) / len(found)
    assert 0.4 < share < 0.6
    other = examples_of(tmp_path, [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows])
    for (question, answer), example in zip(found, other, strict=True):
        assert asked(example) == (question, "AB".replace(answer, "")), "the same question, whose other response is better"
    back = examples_of(tmp_path, rows[::-1])
    assert [asked(example) for example in back][::-1] == found, "where a row stands decides nothing"
    data = written(tmp_path, "d", rows)
    prepare(replace(recipe_of(data), seed=1), tmp_path / "seeded")
    assert [asked(example) for example in Examples(tmp_path / "seeded")] != found


def test_both_orders_give_two_questions_with_the_two_answers(tmp_path: Path) -> None:
    forth, back = examples_of(tmp_path, [pair(1, "yes", "no")], orders=PairOrders.BOTH)
    assert [asked(forth)[1], asked(back)[1]] == ["A", "B"]
    assert "[RESPONSE A] yes [RESPONSE B] no" in asked(forth)[0]
    assert "[RESPONSE A] no [RESPONSE B] yes" in asked(back)[0]


@pytest.mark.parametrize("orders", list(PairOrders))
def test_cleaning_and_holding_out_are_of_pairs_and_change_no_draw(tmp_path: Path, orders: PairOrders) -> None:
    rows = [pair(n, f"yes {n}", f"no {n}") for n in range(60)]
    dirty = [*rows, pair(3, "yes 3", "no 3"), pair(90, "a", "b"), pair(90, "b", "a"), pair(91, "c", "d"), pair(91, "e", "f")]
    data = written(tmp_path, "d", dirty)
    cleaning = PreferenceCleaning(drop_duplicates=True, drop_contradictions=True, max_pairs_per_prompt=1)
    plain = {asked(example) for example in examples_of(tmp_path / ".", dirty, orders=orders)}
    found = prepare(
        recipe_of(data, orders=orders, cleaning=cleaning, held_out_pairs=RewardHeldOut(fraction=0.3)), tmp_path / "made"
    )
    assert {name: found.counts[name] for name in ("pairsDuplicate", "pairsContradictory", "pairsOverMaxPerPrompt")} == {
        "pairsDuplicate": 1,
        "pairsContradictory": 2,
        "pairsOverMaxPerPrompt": 1,
    }
    kept = [asked(example) for example in Examples(tmp_path / "made")]
    assert set(kept) <= plain
    assert found.held_out is not None
    table = pa.ipc.open_file(str(found.held_out)).read_all()
    assert table.schema == HELD_OUT_QUESTIONS
    held = [asked(example) for example in Examples(found.held_out)]
    assert [answer for _, answer in held] == ["A", "B"] * (len(held) // 2)
    assert len(held) // 2 == found.counts["pairsHeldOut"] > 5
    assert len(kept) == found.examples == (61 - len(held) // 2) * (2 if orders is PairOrders.BOTH else 1)
    prompts = {question.split("[RESPONSE A]")[0] for question, _ in kept}
    assert not prompts & {question.split("[RESPONSE A]")[0] for question, _ in held}
    tokenizer = llama3().tokenizer
    for (question, _), lengths in zip(held[::2], table["lengths"].to_pylist()[::2], strict=True):
        chosen, rejected = question.split("[RESPONSE A] ")[1].split("<|eot_id|>")[0].split(" [RESPONSE B] ")
        assert lengths == [len(tokenizer.encode(text, add_special_tokens=False)) for text in (chosen, rejected.rstrip())]


def test_the_file_is_the_same_however_many_processes_make_it(tmp_path: Path) -> None:
    data = written(tmp_path, "d", [pair(n, f"yes {n}", f"no {n}") for n in range(700)])
    recipe = recipe_of(data, held_out_pairs=RewardHeldOut(size=20))
    prepare(recipe, tmp_path / "one")
    prepare(recipe, tmp_path / "two", processes=2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_the_format_has_no_place_for_costs_its_row_and_is_counted(tmp_path: Path) -> None:
    def of(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"chosen": [*turns, assistant("yes")], "rejected": [*turns, assistant("no")], **more}

    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
    rows = [
        of(user("good")),
        of({"role": "system", "content": "Be brief."}, user("with a system turn")),
        of(user("x"), assistant("", tool_calls=[call]), user("y")),
        of(user("long " * 300)),
        of(user("equal")) | {"rejected": [user("equal"), assistant("yes")]},
    ]
    found = prepare(recipe_of(written(tmp_path, "d", rows, max_unusable_rows=0.9), max_length=128), tmp_path / "made")
    assert found.examples == 1
    assert found.counts["pairsOverlong"] == 1
    assert found.counts["pairsEqual"] == 1
    assert sum(count for name, count in found.counts.items() if name.startswith("unusable/")) == 2


def test_a_pair_whose_other_order_does_not_fit_is_left_out_whatever_is_drawn(tmp_path: Path) -> None:
    """Rows of either length are used under every seed, or under none."""
    rows = [pair(n, "yes " * n, "no") for n in range(1, 40)]
    data = written(tmp_path, "d", rows)
    recipes = [replace(recipe_of(data, max_length=96), seed=seed) for seed in range(3)]
    counted = [prepare(recipe, tmp_path / f"made-{recipe.seed}").counts for recipe in recipes]
    assert counted[0] == counted[1] == counted[2]
    assert 0 < counted[0]["pairsOverlong"] < len(rows)


def test_a_pad_that_is_the_end_of_a_turn_masks_no_answer(tmp_path: Path) -> None:
    """RLHFlow/RLHF-Reward-Modeling#21: who trained without a pad token of its own got a model that had learnt nothing."""
    data = written(tmp_path, "d", [pair(n, f"yes {n}", f"no {n}") for n in range(8)])
    padded = llama3()
    padded.tokenizer.pad_token = padded.tokenizer.eos_token
    sets = [(data, open_rows(data, tmp_path / "inputs", STORAGE))]
    Preprocessor(recipe_of(data), padded, None).prepare(sets, tmp_path / "padded", Progress(None), processes=1)
    prepare(recipe_of(data), tmp_path / "plain")
    found = Examples(tmp_path / "padded")
    assert list(found) == list(Examples(tmp_path / "plain"))
    assert build_batch([list(found)]).targets.numel() == len(found)


def test_no_length_cuts_the_answer_off_or_makes_two_questions_one(tmp_path: Path) -> None:
    """OpenBMB/MiniCPM-V#662: what was cut to the limit had lost its label. natolambert/rlhf-book#503: of two long answers behind
    a long prompt nothing was left that differed."""
    rows = [pair("long " * n, "yes", "no") for n in range(1, 30)]
    data = written(tmp_path, "d", rows)
    found = prepare(recipe_of(data, max_length=96, orders=PairOrders.BOTH), tmp_path / "made")
    made = list(Examples(tmp_path / "made"))
    assert found.counts["pairsOverlong"] + len(made) // 2 == len(rows)
    assert 0 < len(made) < 2 * len(rows)
    assert all(example.longest <= 96 and example.counted_tokens == 1 for example in made)
    assert all(forth.prompt != back.prompt for forth, back in zip(made[::2], made[1::2], strict=True))


def test_reasoning_that_the_question_leaves_out_is_counted(tmp_path: Path) -> None:
    turn = user("good")
    row = {
        "chosen": [turn, assistant("yes", reasoning_content="because")],
        "rejected": [turn, assistant("no", reasoning_content="for")],
    }
    found = prepare(recipe_of(written(tmp_path, "d", [row])), tmp_path / "made")
    assert found.counts["notRendered/reasoning_content"] == 1


def test_a_recipe_of_another_kind_is_known_as_it_was() -> None:
    data = DataSource(name="d", uri="file:///d", revision="r")
    plain = Recipe(StageName.REWARD, [data], None, whole(512), 0)
    assert "orders" not in plain.to_wire(llama3())
    assert plain.field == "reward.bradleyTerry.train.data"
    drawn = replace(plain, orders=PairOrders.DRAWN)
    both = replace(plain, orders=PairOrders.BOTH)
    assert drawn.field == "reward.pairwise.train.data"
    assert len({recipe.fingerprint(llama3()) for recipe in (plain, drawn, both)}) == 3


def test_a_tokenizer_without_tokens_for_the_answers_is_refused(world: Path, tmp_path: Path) -> None:
    from rlhf_trainer.models.vocabulary import load_vocabulary

    data = written(tmp_path, "d", [pair(1, "yes", "no")])
    words = load_vocabulary(world / "model", None, [], trust_remote_code=False)
    with pytest.raises(ConfigurationProblem, match="no tokens of their own for A and B"):
        Preprocessor(recipe_of(data), words, None).prepare(
            [(data, open_rows(data, tmp_path / "inputs", STORAGE))], tmp_path / "made", Progress(None), processes=1
        )
