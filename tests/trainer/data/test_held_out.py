"""What is nearly a held-out prompt: whatever is counted is one, and nearly everything that is one is counted."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest

from rlhf_trainer.data.held_out import LONG, NEAR, SHORT, Found, HeldOutPrompts, Overlap, words_of
from rlhf_trainer.data.messages import Message, Tools
from rlhf_trainer.data.prompts import Prompt, PromptSets, prompt_id

CAKE = "How do I bake a chocolate cake without eggs?"
STORY = (
    "Write a short story about a lighthouse keeper who finds a bottle on the beach one winter morning, reads the letter inside, "
    "and decides to answer it although it is sixty years old."
)
#: Explain in one sentence why water becomes ice.
HAN = "\u8bf7\u7528\u4e00\u53e5\u8bdd\u89e3\u91ca\u6c34\u4e3a\u4ec0\u4e48\u4f1a\u7ed3\u51b0\u3002"
WORDS = [f"word{number}" for number in range(3000)]
ZIPF = list(accumulate(1 / (rank + 1) for rank in range(len(WORDS))))


def asks(*texts: str, system: str | None = None) -> tuple[dict[str, Any], ...]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return (*([] if system is None else [{"role": "system", "content": system}]), *turns)


def held_out(texts: Sequence[str]) -> HeldOutPrompts:
    prompts = [Prompt(str(number), asks(text)) for number, text in enumerate(texts)]
    middle = len(prompts) // 2
    return HeldOutPrompts(PromptSets(tuple(prompts[:middle]), tuple(prompts[middle:]), ()), prompt_id)


def test_the_lengths_are_those_from_which_on_one_word_may_be_another() -> None:
    assert (SHORT - 1) / (SHORT + 1) >= NEAR > (SHORT - 2) / SHORT
    rows = LONG - 2
    assert (rows - 3) / (rows + 3) >= NEAR > (rows - 4) / (rows + 2)


@pytest.mark.parametrize(
    ("held", "text", "near"),
    [
        (CAKE, "how do I bake a CHOCOLATE cake, without eggs", True),
        (CAKE, "\uff28ow do I bake a chocolate cake without eggs\uff1f", True),
        (CAKE, "How do I bake a chocolate cake without butter?", True),
        (CAKE, "How do I bake a cheese cake without butter?", False),
        (CAKE, f"{CAKE} {STORY}", False),
        ("How do I bake a cake?", "How do I bake a bread?", False),
        ("How do I bake a cake?", "how do i bake a cake", True),
        (STORY, STORY.replace("winter", "summer"), True),
        (STORY, STORY.replace("winter", "summer").replace("sixty", "forty"), False),
        (STORY, f"Please: {STORY}", True),
        (STORY, " ".join(reversed(STORY.split())), False),
        ("What is 12 + 7?", "what is 12+7", True),
        ("What is 12 + 7?", "What is 12 - 7?", False),
        (HAN, HAN.replace("\u51b0\u3002", "\u971c"), True),
        (HAN, HAN.replace("\u51b0\u3002", "\u971c").replace("\u6c34", "\u706b").replace("\u89e3\u91ca", "\u63cf\u8ff0"), False),
        ("???", "??", False),
        ("???", "???", True),
    ],
)  # fmt: skip
def test_defect_a_held_out_prompt_that_is_written_a_little_otherwise_is_near(held: str, text: str, near: bool) -> None:
    found = held_out(["What else is there?", held]).near(asks(text))
    assert (found is not None) is near
    assert found is None or found.id == "1"


def test_a_system_turn_makes_no_other_question_of_it() -> None:
    assert held_out([STORY]).near(asks(STORY, system="You are a helpful assistant.")) is not None


def test_the_turns_of_a_conversation_are_one_question() -> None:
    held = HeldOutPrompts(PromptSets((Prompt("0", asks(CAKE, "With bananas.", STORY)),), (), ()), prompt_id)
    assert held.near(asks(CAKE, "With bananas!", STORY.upper())) is not None
    assert held.near(asks(STORY)) is None


def text_of(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, cum_weights=ZIPF, k=words))


@pytest.mark.parametrize("words", [12, 50])
def test_what_is_counted_is_near_and_what_is_near_is_counted(words: int) -> None:
    """Against a comparison of all with all, of texts with up to a third of their words changed."""
    chance = random.Random(words)
    texts = [text_of(chance, words) for _ in range(120)]
    held = held_out(texts)
    size = 1 if words < LONG else 3

    def shingles(text: str) -> set[tuple[str, ...]]:
        said = words_of(asks(text))
        return set(zip(*(said[first:] for first in range(size)), strict=False))

    all_of = [shingles(text) for text in texts]
    common = {one for found in all_of for one in found if sum(one in other for other in all_of) > 6}

    def alike(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> bool:
        return len(one & other) / len(one | other) >= NEAR

    seen = []
    for _ in range(600):
        changed = chance.choice(texts).split()
        for place in chance.sample(range(words), chance.randrange(words // 3)):
            changed[place] = chance.choice(WORDS)
        own = shingles(" ".join(changed))
        near = [place for place, other in enumerate(all_of) if alike(own, other) and alike(own - common, other - common)]
        found = held.near(asks(" ".join(changed)))
        assert (found and int(found.id)) == (near[0] if near else None)
        seen.append(found is not None)
    assert 50 < sum(seen) < 550


@pytest.mark.parametrize("words", [15, 60])
def test_what_all_held_out_prompts_begin_with_makes_none_of_them_near(words: int) -> None:
    """A preamble of a hundred words, and a question of its own: without more, each would be near to each."""
    chance = random.Random(words)
    preamble = text_of(chance, 100)
    texts = [f"{preamble} {' '.join(chance.sample(WORDS, words))}" for _ in range(200)]
    held = held_out(texts[:100])
    assert [held.near(asks(text)) for text in texts[100:]] == [None] * 100
    copies = [text.split() for text in texts[:100]]
    for copy in copies:
        copy[-1] = "changed"
    assert [held.near(asks(" ".join(copy))) is not None for copy in copies] == [True] * 100


def test_the_first_of_several_is_named_each_time() -> None:
    texts = [STORY.replace("sixty", number) for number in ("ten", "twenty", "thirty")]
    for _ in range(3):
        found = held_out(["Nothing of the kind.", *texts]).near(asks(STORY))
        assert found is not None
        assert found.id == "1"


def test_without_held_out_prompts_nothing_is_near() -> None:
    held = HeldOutPrompts(PromptSets((), (), ()), prompt_id)
    assert held.near(asks(STORY)) is None
    assert held.near(asks("")) is None


def test_only_who_compares_waits_for_the_library() -> None:
    """It brings scipy, which takes a second."""
    ask = "import sys, rlhf_trainer.data.held_out; sys.exit('datasketch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0


def test_what_reads_the_same_is_the_same_whatever_the_template_drops_of_earlier_turns() -> None:
    """Some templates write no reasoning of earlier turns."""

    def identify(messages: Sequence[Message], tools: Tools = None) -> str:
        return prompt_id([{**message, "content": message["content"].rpartition("</think>")[2]} for message in messages])

    reasoned = asks(CAKE, f"<think>{STORY}</think>Yes.", "And without milk?")
    prompt = Prompt(identify(reasoned), reasoned)
    held = HeldOutPrompts(PromptSets((prompt,), (), ()), identify)
    plain = asks(CAKE, "Yes.", "And without milk?")
    assert held.near(plain) is None
    overlap = Overlap()
    assert overlap.look("row 1", [plain], held) is Found.SAME
    assert (overlap.asked, overlap.same, overlap.near) == (1, 1, 0)
