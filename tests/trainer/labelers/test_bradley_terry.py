"""A reward model as a labeler: a score depends on nothing but its own response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.quickstart import task


def responses(count: int) -> list[Response]:
    import random

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
