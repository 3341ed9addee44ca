"""A reward model as a labeler: a score depends on nothing but its own response."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_api.words import StageExit
from rlhf_trainer.labelers.base import Response, ScoreNotFinite
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.quickstart import task
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.vocabularies import tokenizer, vocabulary


def responses(count: int) -> list[Response]:
    rng = random.Random(0)
    prompts = [task.make_prompt(rng) for _ in range(count)]
    return [Response([{"role": "user", "content": prompt}], task.attempt(prompt, rng)) for prompt in prompts]


@pytest.fixture(scope="module")
def labeler(reward: Path) -> BradleyTerryLabeler:
    return BradleyTerryLabeler.load(reward)


def test_defect_rewards_depend_on_neither_batch_nor_order_nor_padding(labeler: BradleyTerryLabeler) -> None:
    asked = responses(40)
    together = labeler.score(asked)
    assert len(set(together)) > 20
    assert labeler.score(asked[::-1])[::-1] == pytest.approx(together, abs=1e-5)
    assert [labeler.score([one])[0] for one in asked[:8]] == pytest.approx(together[:8], abs=1e-5)


def test_defect_the_reward_is_read_at_the_last_real_token(labeler: BradleyTerryLabeler, reward: Path, tokenizer: Any) -> None:
    """With pad = eos, readers that look for the first pad token read the wrong one; there is no padding here."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(str(reward)).eval()
    asked = responses(6)
    for response, ours in zip(asked, labeler.score(asked), strict=True):
        turns = [*response.messages, {"role": "assistant", "content": response.text}]
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        assert ids[-1] == tokenizer.eos_token_id
        with torch.no_grad():
            states = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        assert ours == pytest.approx(float(model.score(states).detach()), abs=1e-5)


def test_equal_responses_have_equal_scores(labeler: BradleyTerryLabeler) -> None:
    asked = responses(3)
    scores = labeler.score([*asked, *asked])
    assert scores[:3] == scores[3:]


@pytest.fixture
def overflowing(reward: Path, tokenizer: Any, tmp_path: Path) -> BradleyTerryLabeler:
    """A model that answers NaN where a response has the word of OVERFLOWS, as one in half precision does on some text."""
    folder = shutil.copytree(reward, tmp_path / "reward")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids(OVERFLOWS)] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return BradleyTerryLabeler.load(folder)


OVERFLOWS, SOUND = task.WORDS[0], task.WORDS[1:9]


def named(texts: Sequence[str]) -> list[Response]:
    return [
        Response([{"role": "user", "content": SOUND[0]}], text, f"prompt p, completion {number}")
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_score_that_is_not_finite_is_told_of_its_own_response_and_not_of_its_neighbours(
    overflowing: BradleyTerryLabeler, place: int
) -> None:
    """They share a row, and 0 x NaN is NaN."""
    texts = [*SOUND[:place], f"{OVERFLOWS} {SOUND[0]}", *SOUND[place:]]
    with pytest.raises(ScoreNotFinite, match=rf"is nan for prompt p, completion {place}, which begins '{OVERFLOWS} ") as raised:
        overflowing.score(named(texts))
    assert raised.value.exit == StageExit.CONFIGURATION, "another attempt would compute it again"


def test_responses_beside_none_that_overflows_are_scored(overflowing: BradleyTerryLabeler, labeler: BradleyTerryLabeler) -> None:
    assert overflowing.score(named(SOUND)) == pytest.approx(labeler.score(named(SOUND)), abs=1e-6)


def test_scores_are_the_same_to_the_last_bit_however_prompts_are_shared_out(labeler: BradleyTerryLabeler) -> None:
    rng = random.Random(1)
    prompts = [[Response(one.messages, task.attempt(one.messages[0]["content"], rng)) for _ in range(4)] for one in responses(12)]
    together = labeler.score([response for prompt in prompts for response in prompt])
    for shards in (2, 3, 12):
        for shard in range(shards):
            alone = labeler.score([response for prompt in prompts[shard::shards] for response in prompt])
            assert alone == [score for prompt in range(shard, 12, shards) for score in together[4 * prompt : 4 * prompt + 4]]


def test_an_answer_that_the_reward_model_cannot_be_asked_about_is_named() -> None:
    """With a marker in it that is not called special, as R1's distilled models have them: a token in any text."""
    marker = "<|says|>"
    lines = "{{ bos_token }}{% for m in messages %}<|says|>{{ m.role }}: {{ m.content }}<eos>{% endfor %}"
    chat = vocabulary(tokenizer(("<bos>", "<eos>"), lines, bos="<bos>", eos="<eos>", plain=(marker,))).chat
    asked = Response([{"role": "user", "content": "Why?"}], f"Because {marker} so.", "prompt 0f3a, completion 2")
    with pytest.raises(ConfigurationProblem, match=r"about prompt 0f3a, completion 2, which begins 'Because .*'<\|says\|>'"):
        BradleyTerryLabeler(None, chat).score([asked])
