"""Messages to token ids, once. After this module only ids pass between stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from rlhf_trainer.data.messages import Message, Tools, names_of
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .ends import require_end
from .templates import DATE, Template, TemplateRefusal, times_in
from .tokens import Encoded, Encoder, Written


@dataclass(frozen=True)
class _Span:
    """Of an answer, in a text: the parts that are the assistant's; what it says ends at `said`, where that can be found."""

    parts: Sequence[tuple[int, int]]
    said: int | None


@dataclass(frozen=True)
class Draft:
    """A conversation before it is tokenised: what the template wrote, and where the answers stand in it that a loss counts."""

    written: Written
    spans: Sequence[_Span]


@dataclass(frozen=True)
class Answered:
    """ids of a conversation up to its last answer and, for each, whether the loss counts it."""

    ids: list[int]
    counted: list[bool]


class Chat:
    """A tokenizer under its chat template, on a day.

    `leading`, `trailing`: ids that stand in front of every text, and behind what is scored, and that the template does not write;
    see `added_ids`.
    """

    def __init__(self, tokenizer: Any, day: date = DATE, leading: Sequence[int] = (), trailing: Sequence[int] = ()) -> None:
        self.template = Template(tokenizer, day)
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer, self.template.controls)
        self._leading, self._trailing = list(leading), list(trailing)

    @property
    def identity(self) -> list[object]:
        """What decides the text of a conversation, and the ids in front of it."""
        trailing = [self._trailing] if self._trailing else []
        return [self.template.source, self.template.hash, self._leading, *trailing]

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """Ids of `messages` and the header of the answer. BOS is what the template writes: the tokenizer adds none of its own.

        Raises ConfigurationProblem when BOS stands twice at the start, or when the template cannot render these roles.
        """
        guarded = self.template.guard(messages, tools)
        return self._led(self._encoder.encode(Written(guarded, self.template.text(guarded, ask=True))).ids)

    def asked(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """The text of a prompt, as the policy reads it. Raises TemplateRefusal, also where the tokenizer cannot read it so."""
        guarded = self.template.guard(messages, tools)
        written = Written(guarded, self.template.text(guarded, ask=True))
        self.require_readable(written)
        return guarded.restored(written.text)[0]

    def require_readable(self, written: Written) -> None:
        """Raises TemplateRefusal where the tokenizer cannot read it so. Most read whatever they are given, and are not asked."""
        if written.guarded.stand_ins or self._encoder.may_forge:
            self._encoder.encode(written)

    def require_known(self, ids: Sequence[int]) -> None:
        """Raises UnknownLetters where some of them stand for nothing that was written."""
        self._encoder.require_known(ids)

    def require_known_prompt(self, messages: Sequence[Message], tools: Tools = None) -> None:
        """The same, of a prompt. Most tokenizers know every letter, and are not asked."""
        if self._encoder.unknown is not None:
            self.require_known(self.prompt(messages, tools))

    def conversation(self, messages: Sequence[Message], tools: Tools = None) -> list[Draft]:
        """What the loss counts is what the assistant says, its end included; a question behind the last answer is left out.

        One draft where the template appends. Where it changes what it wrote of a turn when another follows (it drops the
        reasoning of earlier ones), one for each answer, each as the model would be asked for it.
        Raises ConfigurationProblem when the assistant's words cannot be told.
        """
        answers = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            return []
        guarded = self.template.guard(messages[: answers[-1] + 1], tools)
        turns = [guarded.messages[position] for position in answers]
        heads = [self.template.text(guarded, position, ask=True) for position in answers]
        written = [self.template.marked_text(guarded, position + 1) for position in answers]
        texts = [text for text, _ in written]
        if not all(text.startswith(head) for head, text in zip(heads, texts, strict=True)):
            raise _other_question()
        appends = all(texts[-1].startswith(text) for text in (*heads, *texts))
        each = zip(heads, [written[-1]] * len(texts) if appends else written, texts, turns, strict=True)
        spans = [self._span(text, marks, len(head), len(own), turn) for head, (text, marks), own, turn in each]
        wanted = [(text, span) for text, span, turn in zip(texts, spans, turns, strict=True) if _is_trained(turn)]
        if appends:
            return [Draft(Written(guarded, texts[-1]), [span for _, span in wanted])]
        return [Draft(Written(guarded, text), [span]) for text, span in wanted]

    def exchange(self, messages: Sequence[Message], answer: Message, tools: Tools = None) -> Draft:
        """A prompt and the closed response behind it, as a reward model reads them with its own template."""
        guarded = self.template.guard([*messages, answer], tools)
        head, text = self.template.text(guarded, len(messages), ask=True), self.template.text(guarded, ask=False)
        # A template may treat a generation prompt differently from a finished turn; a reward model sees finished turns alone.
        return Draft(Written(guarded, text), [_Span([(_shared(head, text), len(text))], None)])

    def read_ahead(self, drafts: Sequence[Draft]) -> None:
        """Tokenises them together, which is faster: `answered` and `sides` of each do the rest. All are held."""
        self._encoder.read_ahead([draft.written for draft in drafts])

    def answered(self, draft: Draft, stop_ids: frozenset[int] = frozenset()) -> Answered:
        """Tokens of a `conversation`, and which of them count.

        Raises ConfigurationProblem when the assistant's tokens cannot be told; BoundaryProblem where that may be this
        conversation's alone; NoEnd where the last answer has no end.
        """
        encoded = self._encoder.encode(draft.written)
        counted = [False] * len(encoded.ids)
        last: list[int] = []
        for span in draft.spans:
            tokens = [i for start, end in span.parts for i in range(*self._answer(encoded, start, end))]
            last = [encoded.ids[i] for i in tokens]
            behind = self._end_of(encoded, span, tokens, stop_ids)
            for i in tokens:
                counted[i] = i < behind
        if draft.spans:
            require_end(self._tokenizer, last, stop_ids)
        ids = self._led(encoded.ids)
        return Answered(ids, [False] * (len(ids) - len(encoded.ids)) + counted)

    def sides(self, draft: Draft) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the response of an `exchange`."""
        [span] = draft.spans
        encoded = self._encoder.encode(draft.written)
        count, _ = self._encoder.tokens_within(encoded, span.parts[0][0])
        ids = self._led(encoded.ids)
        count += len(ids) - len(encoded.ids)
        ends = ids[len(ids) - len(self._trailing) :] == self._trailing
        return ids[:count], ids[count:] if ends else [*ids[count:], *self._trailing]

    def left_out(self, messages: Sequence[Message], tools: Tools = None) -> set[str]:
        """Of what messages hold beside role and content, and `tools`, the names of what the template writes nothing of.

        Raises TemplateRefusal where it cannot render the conversation as it is.
        """
        names = {name for message in messages for name in message} - {"role", "content", "train"}
        if not names and tools is None:
            return set()
        whole = self.template.text(self.template.guard(messages, tools), ask=False)
        found = {name for name in names if self._without(messages, name, tools) == whole}
        for position, message in enumerate(messages):
            calls = message.get("tool_calls", ())
            if len(calls) > 1 and self._with(messages, position, tools, tool_calls=calls[:-1]) == whole:
                found.add("tool_calls")
            if calls and message["content"].strip() and self._with(messages, position, tools, content="") == whole:
                found.add("content")
        if tools is not None and self._without(messages, None, None) == whole:
            found.add("tools")
        return found

    def tools_left_out(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[str]:
        """Names of functions and of their parameters that the template does not write; all, where it writes nothing of any.

        `tools`: as `functions_of` has them. Raises TemplateRefusal where it cannot render the conversation with them.
        """
        guarded = self.template.guard(messages, tools)
        text = self.template.text(guarded, ask=False)
        # A name may be a word of what is said, or of the template's own.
        before = self._without(messages, None, None) or ""
        named = names_of(guarded.tools or [])
        return [guarded.restored(name)[0] for name in named if text == before or times_in(name, text) <= times_in(name, before)]

    def _without(self, messages: Sequence[Message], name: str | None, tools: Tools) -> str | None:
        """The text without a field; None where the template cannot do without it."""
        kept = [{key: value for key, value in message.items() if key != name} for message in messages]
        try:
            return self.template.text(self.template.guard(kept, tools), ask=False)
        except TemplateRefusal:
            return None

    def _with(self, messages: Sequence[Message], position: int, tools: Tools, **changed: Any) -> str | None:
        """The text with one message changed; None where the template cannot do without what it had."""
        others = [{**message, **changed} if place == position else message for place, message in enumerate(messages)]
        return self._without(others, None, tools)

    def _end_of(self, encoded: Encoded, span: _Span, tokens: Sequence[int], stop_ids: frozenset[int]) -> int:
        """The token behind the answer's own end: the first stop behind what it says. A template may write some in it, and more
        behind the end. Behind all of them, where there is none.
        """
        stops = [i + 1 for i in tokens if encoded.ids[i] in stop_ids]
        if span.said is None:
            return stops[-1] if stops else len(encoded.ids)
        said = self._encoder.tokens_within(encoded, span.said)[0]
        return next((stop for stop in stops if stop > said), len(encoded.ids))

    def _span(self, text: str, marks: Sequence[tuple[int, int]] | None, start: int, end: int, turn: Message) -> _Span:
        """Of the answer between two places: all of it, or what the template marks in it.

        Raises ConfigurationProblem where it does not begin as it does when it is sampled.
        """
        parts = [(start, end)]
        if marks is not None:
            cut = [(max(first, start), min(behind, end)) for first, behind in marks]
            parts = [(first, behind) for first, behind in cut if first < behind]
        between = text[start : parts[0][0]] if parts else ""
        header = self.template.header
        if between or (header and text.startswith(header, parts[0][0] if parts else end)):
            raise ConfigurationProblem(
                f"The chat template writes {between or header!r} in front of an answer, and not where it asks for that answer: the "
                "model would be trained on answers to something else. Set policy.chatTemplate to a template whose answers begin "
                "where its prompts end."
            )
        content = turn["content"].strip()
        found = self.template.letters(text[start:end]).rfind(content) if content and "tool_calls" not in turn else -1
        return _Span(parts, start + found + len(content) if found >= 0 else None)

    def _answer(self, encoded: Encoded, start: int, end: int) -> tuple[int, int]:
        """The first token of what stands between two places, and the one behind it; a token across the end is the next turn's."""
        return self._encoder.tokens_before(encoded, start), self._encoder.tokens_within(encoded, end)[0]

    def _led(self, ids: list[int]) -> list[int]:
        """Raises ConfigurationProblem unless BOS, where the tokenizer has one, is written at most once at the start."""
        if self._leading and ids[: len(self._leading)] != self._leading:
            ids = [*self._leading, *ids]
        bos = self._tokenizer.bos_token_id
        if bos is not None and bos != self._tokenizer.eos_token_id and ids[:2] == [bos, bos]:
            raise ConfigurationProblem(
                f"The chat template writes BOS twice at the start (id {bos}). Remove one bos_token from the template."
            )
        return ids


def _shared(first: str, second: str) -> int:
    """Characters with which both begin."""
    if second.startswith(first):
        return len(first)
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[:middle] == second[:middle] else (low, middle - 1)
    return low


def _other_question() -> ConfigurationProblem:
    return ConfigurationProblem(
        "The chat template does not continue its own prompt: what it renders for a conversation does not begin with what it "
        "renders for the conversation so far, so that the assistant's tokens cannot be found, or answer what is never asked. Set "
        "policy.chatTemplate to a template that appends."
    )


def _is_trained(turn: Message) -> bool:
    return turn.get("train") is not False


def added_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts in front of a text by itself, where nobody forbids it, and behind it: BOS and EOS, or nothing."""
    alone = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    place = next((i for i in range(len(whole)) if whole[i : i + len(alone)] == alone), None)
    return ([], []) if place is None else (whole[:place], whole[place + len(alone) :])
