"""Demonstrations and preferences to examples: their ids, what the loss counts of them, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.held_out import Found, HeldOutPrompts, Overlap
from rlhf_trainer.data.layouts import Demonstration, Preference
from rlhf_trainer.data.messages import Message
from rlhf_trainer.data.preferences import Limits, fit
from rlhf_trainer.data.rows import Tally, Unusable
from rlhf_trainer.models.chat import Answered, Chat, Draft
from rlhf_trainer.models.questions import require_untemplated
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.tokens import BoundaryProblem
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: What a conversation means is lost without these; without others, only what was said beside it.
_NEEDED = frozenset({"tools", "tool_calls"})


@dataclass(frozen=True)
class Comparison:
    """How pairs are read. of_policy: each answer as the policy gives it, up to its end; else a reward model's, whole with what its
    template writes behind. with_scores: rows without are left out.
    """

    limits: Limits
    min_margin: float = 0.0
    of_policy: bool = False
    with_scores: bool = False


def encode_demonstrations(
    items: Sequence[Demonstration],
    tally: Tally,
    vocabulary: Vocabulary,
    max_length: int,
    counts: dict[str, int],
    held_out: HeldOutPrompts | None = None,
    overlap: Overlap | None = None,
) -> list[Example]:
    """Examples without a prompt of their own: every turn is in the one completion, and only what the assistant says is counted.

    What answers a prompt of `held_out` is left out and counted, in `overlap` too. `tally` gets what the template refuses.
    Raises ConfigurationProblem where the template is at fault.
    """
    chat = vocabulary.chat
    asked: list[tuple[Demonstration, list[Draft]]] = []
    for item in items:
        count(counts, "conversations")
        if not is_untemplated(item.messages, item.row, tally, chat):
            continue
        if is_held_out(item, tally.place(item.row), held_out, overlap, counts):
            continue
        with refusing(tally, item.row):
            _require_rendered(chat, [item.messages], item.tools, counts)
            asked.append((item, chat.conversation(item.messages, item.tools)))
    chat.read_ahead([draft for _, drafts in asked for draft in drafts])
    found: list[Example] = []
    for item, drafts in asked:
        with refusing(tally, item.row):
            parts = [chat.answered(draft, vocabulary.stop_ids) for draft in drafts]
            for part in parts:
                chat.require_known(part.ids)
            if not parts:
                count(counts, "conversationsWithoutAnswer")
            if len(parts) > 1:
                count(counts, "conversationsUnrolled")
            found += [example for part in parts if (example := _cut(part, item.row, max_length, counts)) is not None]
    return found


def encode_preferences(
    items: Sequence[Preference],
    tally: Tally,
    vocabulary: Vocabulary,
    comparison: Comparison,
    counts: dict[str, int],
    held_out: HeldOutPrompts | None = None,
    overlap: Overlap | None = None,
) -> list[Example]:
    """Cleaned as the paper's report has it: equal responses and scores go, too small margins go, each counted. So does what answers
    a prompt of `held_out`.
    """
    chat = vocabulary.chat
    asked: list[tuple[Preference, list[Draft]]] = []
    for item in items:
        count(counts, "pairsRead")
        if not is_untemplated([*item.prompt, item.chosen, item.rejected], item.row, tally, chat):
            continue
        if is_held_out(item, tally.place(item.row), held_out, overlap, counts):
            continue
        if comparison.with_scores and item.margin is None:
            tally.refuse(item.row, Unusable("withoutScores", "there are no scores, which the loss REBEL compares"))
            continue
        if (reason := reason_to_drop(item, comparison.min_margin)) is not None:
            count(counts, reason)
            continue
        answers = (item.chosen, item.rejected)
        with refusing(tally, item.row):
            _require_rendered(chat, [(*item.prompt, answer) for answer in answers], item.tools, counts)
            draft = _answer_of_policy if comparison.of_policy else Chat.exchange
            asked.append((item, [draft(chat, item.prompt, answer, item.tools) for answer in answers]))
    chat.read_ahead([draft for _, drafts in asked for draft in drafts])
    found: list[Example] = []
    for item, drafts in asked:
        with refusing(tally, item.row):
            prompt, (chosen, rejected) = _own_pair(vocabulary, drafts) if comparison.of_policy else _pair(chat, drafts)
            fitted = fit(prompt, chosen, rejected, comparison.limits)
            if isinstance(fitted, str):
                count(counts, fitted)
                continue
            if fitted.tokens < len(prompt) + len(chosen) + len(rejected):
                count(counts, "pairsTruncated")
            found.append(replace(fitted, margin=item.margin, row=item.row))
    return found


@contextmanager
def refusing(tally: Tally, row: int) -> Iterator[None]:
    """What may be wrong with this row alone costs the row. Raises ConfigurationProblem, with its place, for all else."""
    try:
        yield
    except TemplateRefusal as problem:
        tally.refuse(row, Unusable(problem.kind, str(problem)))
    except BoundaryProblem as problem:
        # An answer may begin with what its tokenizer merges with the header before it. Were it the template, it would be all.
        tally.refuse(row, Unusable("withoutBoundary", str(problem)))
    except ConfigurationProblem as problem:
        raise type(problem)(f"{tally.source.uri}: {tally.place(row)}: {problem}") from problem


def is_held_out(
    item: Demonstration | Preference, place: str, held_out: HeldOutPrompts | None, overlap: Overlap | None, counts: dict[str, int]
) -> bool:
    """Whether one of its questions is held out. One that is nearly so is counted, and stays: it may be another question."""
    if held_out is None:
        return False
    found = (Overlap() if overlap is None else overlap).look(place, item.asked, held_out, item.tools)
    if found is not Found.NOTHING:
        count(counts, "heldOut" if found is Found.SAME else "nearHeldOut")
    return found is Found.SAME


def is_untemplated(messages: Sequence[Message], row: int, tally: Tally, chat: Chat) -> bool:
    """Whether nobody has put a template around its turns before; else the tally has it."""
    try:
        require_untemplated(messages)
        for message in messages:
            closed = [token for token in chat.template.controls if message["content"].rstrip().endswith(token)]
            if closed and message["role"] == "assistant":
                raise Unusable("alreadyTemplated", f"an answer ends with {closed[0]}, as templates close turns; remove it")
    except Unusable as problem:
        tally.refuse(row, problem)
        return False
    return True


def _cut(part: Answered, row: int, max_length: int, counts: dict[str, int]) -> Example | None:
    ids, counted = part.ids, part.counted
    if len(ids) > max_length:
        count(counts, "conversationsTruncated")
        ids, counted = ids[:max_length], counted[:max_length]
    if not any(counted):
        count(counts, "conversationsWithoutAnswer")
        return None
    return Example([], [ids], [counted], row=row)


def reason_to_drop(item: Preference, min_margin: float) -> str | None:
    """Of a pair, by what counts have it; None: it stays."""
    if item.chosen == item.rejected:
        return "pairsEqual"
    if item.margin is not None:
        if item.margin <= 0:
            return "pairsTied"
        if item.margin <= min_margin:
            return "pairsBelowMargin"
    return None


def _answer_of_policy(chat: Chat, prompt: Sequence[Message], answer: Message, tools: list[Any] | None) -> Draft:
    """Of the conversation, this answer alone counts, whatever a row says of its turns."""
    asked = [{**message, "train": False} if message["role"] == "assistant" else message for message in prompt]
    [draft] = chat.conversation([*asked, {**answer, "train": True}], tools)
    return draft


def _own_pair(vocabulary: Vocabulary, drafts: Sequence[Draft]) -> tuple[list[int], list[list[int]]]:
    """The prompt as it is sampled from, and each answer up to the end that stops the sampler."""
    prompts: list[list[int]] = []
    answers: list[list[int]] = []
    for draft in drafts:
        found = vocabulary.chat.answered(draft, vocabulary.stop_ids)
        vocabulary.chat.require_known(found.ids)
        first, behind = found.counted.index(True), len(found.counted) - found.counted[::-1].index(True)
        if not all(found.counted[first:behind]):
            raise ConfigurationProblem(
                "The chat template marks some of an answer as the assistant's, and some within it not: a pair is of whole answers. "
                "Set policy.chatTemplate to one without {% generation %}."
            )
        prompts.append(found.ids[:first])
        answers.append(found.ids[first:behind])
    if prompts[0] != prompts[1]:
        raise BoundaryProblem("the chat template writes another prompt before the chosen answer than before the rejected one")
    return prompts[0], answers


def _pair(chat: Chat, drafts: Sequence[Draft]) -> tuple[list[int], list[list[int]]]:
    """Where an answer's first token takes the end of the prompt in (two newlines are one token), the prompt ends before it."""
    sides = [chat.sides(draft) for draft in drafts]
    whole = [prompt + answer for prompt, answer in sides]
    for ids in whole:
        chat.require_known(ids)
    shared = min(len(prompt) for prompt, _ in sides)
    shared = next((i for i in range(shared) if whole[0][i] != whole[1][i]), shared)
    return whole[0][:shared], [ids[shared:] for ids in whole]


def _require_rendered(
    chat: Chat, conversations: Sequence[Sequence[Message]], tools: list[Any] | None, counts: dict[str, int]
) -> None:
    """What the template leaves out is counted. Raises ConfigurationProblem where it is what the conversation is about."""
    lost = {name for messages in conversations for name in chat.left_out(messages, tools)}
    if needed := sorted(lost & _NEEDED):
        raise ConfigurationProblem(
            f"The chat template leaves out {' and '.join(needed)}: the model would be trained on answers to something else. "
            "Set policy.chatTemplate to one that renders them, or remove these rows."
        )
    for name in lost:
        count(counts, f"notRendered/{name}")


def count(counts: dict[str, int], name: str) -> None:
    """One more of `name`."""
    counts[name] = counts.get(name, 0) + 1
