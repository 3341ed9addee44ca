"""Preferences from outside as the policy gives its answers: from its own prompt, up to the end that stops the sampler."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.resource.training import Overlong
from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.layouts import preferences_of
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.training.prepared.encoding import Comparison, encode_preferences
from support.conversations import SOURCE, assistant, llama3, qwen2_5, qwen3, user

LIMITS = Limits(4096, 2048, Overlong.TRUNCATE)


def pairs(
    rows: list[dict[str, Any]], under: Vocabulary, limits: Limits = LIMITS, *, with_scores: bool = False
) -> tuple[list[Example], dict[str, int]]:
    items, tally = preferences_of(SOURCE, rows, "train.data.offline").read(rows)
    counts: dict[str, int] = {}
    comparison = Comparison(limits, of_policy=True, with_scores=with_scores)
    found = encode_preferences(items, tally, under, comparison, counts)
    return found, counts | tally.reasons


def row(*turns: dict[str, Any], chosen: Any = "Paris.", rejected: Any = "Rome.", **more: Any) -> dict[str, Any]:
    return {"prompt": [*turns], "chosen": chosen, "rejected": rejected, **more}


def said(under: Vocabulary, ids: Any) -> str:
    return str(under.tokenizer.decode(list(ids)))


TURNS = (user("Hello"), assistant("Hi. What is it?"), user("The capital of France?"))


@pytest.mark.parametrize("under", [llama3(), qwen2_5(), qwen3()], ids=["llama3", "qwen2.5", "qwen3"])
def test_an_answer_ends_with_what_stops_the_sampler_and_its_prompt_is_the_one_that_is_asked(under: Vocabulary) -> None:
    """ChatML writes a line break behind the end, which nobody samples."""
    [example], _ = pairs([row(*TURNS)], under)
    assert list(example.prompt) == under.chat.prompt(TURNS)
    for ids, text in zip(example.completions, ("Paris.", "Rome."), strict=True):
        assert ids[-1] in under.stop_ids
        assert said(under, ids[:-1]).endswith(text)
        assert "Hi." not in said(under, ids)
    assert example.counted is None


def test_what_a_row_says_of_the_training_of_its_turns_is_no_business_of_a_pair() -> None:
    turns = (user("Hello"), assistant("Hi.", weight=1), user("The capital of France?"))
    plain = row(*turns, chosen=[assistant("Paris.")], rejected=[assistant("Rome.")])
    told = row(*turns, chosen=[assistant("Paris.", weight=0)], rejected=[assistant("Rome.", weight=0)])
    assert pairs([told], llama3()) == pairs([plain], llama3())


def test_limits_are_those_of_the_runs_own_pairs() -> None:
    long = row(user("Name it."), chosen="Paris " * 50)
    asked = len(llama3().chat.prompt(long["prompt"]))
    [cut], counts = pairs([long], llama3(), Limits(asked + 9, asked, Overlong.TRUNCATE))
    assert [len(ids) for ids in cut.completions] == [9, len(cut.completions[1])]
    assert counts == {"pairsRead": 1, "pairsTruncated": 1}
    assert pairs([long], llama3(), Limits(asked + 9, asked, Overlong.DROP)) == ([], {"pairsRead": 1, "pairsOverlong": 1})
    assert pairs([long], llama3(), Limits(999, asked - 1, Overlong.DROP)) == ([], {"pairsRead": 1, "pairsPromptTooLong": 1})


def test_scores_come_with_a_pair_and_a_loss_of_scores_leaves_out_rows_without() -> None:
    rows = [row(user("Where?"), chosen_score=3.5, rejected_score=1), row(user("Who?"))]
    found, _ = pairs(rows, llama3())
    assert [example.margin for example in found] == [2.5, None]
    found, counts = pairs(rows, llama3(), with_scores=True)
    assert [example.margin for example in found] == [2.5]
    assert counts == {"pairsRead": 2, "withoutScores": 1}
