"""What a pairwise preference model is asked, and how it answers: as RLHFlow's were trained (RLHF-Reward-Modeling, pair-pm)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlhf_trainer.data.messages import Message, Tools
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .chat import Chat
from .templates import TemplateRefusal

#: Its two answers: which response is better.
_ANSWERS = ("A", "B")
_ROLES = ("user", "assistant")


def question(messages: Sequence[Message], tools: Tools, first: str, second: str) -> Message:
    """The one turn that holds prompt and responses. Raises TemplateRefusal for what the format has no place for."""
    others = sorted({str(message["role"]) for message in messages} - set(_ROLES))
    if others or tools:
        what = f"a turn of the {others[0]}" if others else "tools"
        raise TemplateRefusal(f"The format of pairwise preference models has no place for {what}.")
    turns = "".join(f"\n<turn> {message['role']}\n {message['content']}" for message in messages)
    return {"role": "user", "content": f"[CONTEXT] \n{turns}\n [RESPONSE A] {first} [RESPONSE B] {second} \n"}


def asked_ids(chat: Chat, asked: Message, bos: int | None) -> list[int]:
    """Under the model's own template, up to the place of the answer; without BOS, which its authors take out."""
    ids = chat.prompt([asked])
    return ids[1:] if bos is not None and ids[:1] == [bos] else ids


def answer_ids(tokenizer: Any) -> tuple[int, int]:
    """Raises ConfigurationProblem where an answer is no token."""
    found = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in _ANSWERS]
    if any(len(ids) != 1 for ids in found) or found[0] == found[1]:
        raise ConfigurationProblem(
            f"The tokenizer of the pairwise preference model has no tokens of their own for {' and '.join(_ANSWERS)}, its answers. "
            "Name a model that was trained so, or a Bradley-Terry one."
        )
    return found[0][0], found[1][0]
