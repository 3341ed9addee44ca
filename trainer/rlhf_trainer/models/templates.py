"""Conversations to text, by a chat template: what people wrote stays apart from what the template writes, and no clock is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from itertools import islice
from typing import Any

from rlhf_trainer.data.messages import Message
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

#: Templates that a manifest may name. Llama3 is the format of Meta's Llama 3 model card; ChatML is OpenAI's.
NAMED_TEMPLATES: dict[str, str] = {
    "Llama3": (
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "ChatML": (
        "{{ bos_token or '' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}

#: What a template that asks for the date is told where the manifest says nothing: the day on which Llama 3.1's and 3.2's fall back.
#: A constant for ever: equal work must have equal tokens tomorrow, too.
DATE = date(2024, 7, 26)
#: By this a template of transformers asks for the time.
_CLOCK = "strftime_now"
_SECONDS = re.compile(r"%[-_0^#]?\d*s")
#: Its spans are what its makers train on.
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
#: No text that people write has characters of this plane: it is for private use.
_PRIVATE = 0xF0000
_MAX_WORDS = 300
#: Roles whose words must stand in what a template writes; of an answer it may leave out earlier reasoning.
_HEARD = frozenset({"system", "developer", "user", "tool"})
#: Added tokens that a model says itself, though they control nothing: a template may write them around what it says.
_SAID = re.compile("think|tool|reason|response|answer", re.IGNORECASE)
_PROBE = "What is 17 + 25?"
#: What every message has; a role is one of a few words.
_ALWAYS = ("role", "content")


class TemplateRefusal(ConfigurationProblem):
    """The template raises on this conversation: a role, an order of turns or a field that it does not have."""

    kind = "templateRefuses"
    """The key of a count."""


@dataclass(frozen=True)
class Guarded:
    """A conversation in which each control token of its text is one character, which a template takes for any other."""

    messages: Sequence[Message]
    tools: Sequence[Any] | None
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def restored(self, text: str) -> tuple[str, list[int]]:
        """The text as people wrote it, and for each of its characters, and its end, the place in `text` that it comes from."""
        parts: list[str] = []
        places: list[int] = []
        for place, character in enumerate(text):
            parts.append(self.stand_ins.get(character, character))
            places += [place] * len(parts[-1])
        return "".join(parts), [*places, len(text)]


class Template:
    """The chat template of a tokenizer, on the day `day`."""

    def __init__(self, tokenizer: Any, day: date = DATE) -> None:
        self._tokenizer = tokenizer
        self._day = day
        self._special = dict(tokenizer.special_tokens_map)
        self.source = str(tokenizer.chat_template)
        self.controls = control_tokens(tokenizer)
        self._controls = _any_of(self.controls)
        self.in_parts = False
        self.in_parts = self._wants_parts()
        self.controls = sorted({*self.controls, *self._markers()}, key=lambda token: (-len(token), token))
        self._controls = _any_of(self.controls)

    @property
    def asks_for_the_date(self) -> bool:
        return _CLOCK in self.source

    @property
    def marks_answers(self) -> bool:
        """Whether it says itself what of its text is the assistant's."""
        return _MARKED.search(self.source) is not None

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the template, and of the day where it asks for one."""
        text = f"{self.source}\0{self._day.isoformat()}" if self.asks_for_the_date else self.source
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def letters(self, text: str) -> str:
        """The text with the template's control tokens blotted out: what is sought is not found in their spelling."""
        return text if self._controls is None else self._controls.sub(lambda match: "\0" * len(match[0]), text)

    def guard(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> Guarded:
        if self._controls is None or not _stands_anywhere(self._controls, messages, tools):
            return Guarded(messages, tools)
        taken: set[str] = set()
        _any_text(taken.update, [messages, tools])
        free = (chr(code) for code in range(_PRIVATE, _PRIVATE + 0xFFFE) if chr(code) not in taken)
        found = sorted(_all_matches(self._controls, [messages, tools]))
        by_token = dict(zip(found, islice(free, len(found)), strict=True))
        stand_in = partial(self._controls.sub, lambda match: by_token[match[0]])

        return Guarded(
            [_mapped(stand_in, dict(message)) for message in messages],
            None if tools is None else [_mapped(stand_in, tool) for tool in tools],
            {character: token for token, character in by_token.items()},
        )

    def text(self, guarded: Guarded, until: int | None = None, *, ask: bool) -> str:
        """What it writes for the first `until` messages; `ask`: with the header of an answer behind it. Raises TemplateRefusal."""
        return self._rendered(guarded, until, ask=ask)[0]

    def marked_text(self, guarded: Guarded, until: int) -> tuple[str, list[tuple[int, int]] | None]:
        """The text, and where in it what the template marks as the assistant's begins and ends; None where it marks nothing."""
        text, spans = self._rendered(guarded, until, ask=False)
        return text, spans if self.marks_answers else None

    @cached_property
    def header(self) -> str:
        """What it writes in front of an answer that is asked for; empty where that is no control token, which an answer may say."""
        probe = Guarded([{"role": "user", "content": _PROBE}], None)
        try:
            before, asked = (self._rendered(probe, None, ask=ask)[0] for ask in (False, True))
        except TemplateRefusal:
            return ""
        header = asked.removeprefix(before) if asked.startswith(before) else ""
        return header if self.letters(header) != header else ""

    def _markers(self) -> set[str]:
        """Added tokens with which it begins turns, though the tokenizer calls them nothing special."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {}).values()
        plain = {str(token.content) for token in added if not token.special and not _SAID.search(str(token.content))}
        probe = Guarded([{"role": "user", "content": _PROBE}], None)
        try:
            text = self._rendered(probe, None, ask=True)[0].replace(_PROBE, "")
        except TemplateRefusal:
            return set()
        return {token for token in plain if token.strip() and token in text}

    def _wants_parts(self) -> bool:
        """Whether a content must be a list of typed parts: templates of models that see write nothing of plain text."""
        probe = Guarded([{"role": "user", "content": _PROBE}], None)
        try:
            self._rendered(probe, None, ask=True)
        except TemplateRefusal:
            self.in_parts = True
            try:
                self._rendered(probe, None, ask=True)
            except TemplateRefusal:
                # Neither: whoever renders with it is told.
                return False
            return True
        return False

    def _rendered(self, guarded: Guarded, until: int | None, *, ask: bool) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[[self._handed(message) for message in guarded.messages[:until]]],
                tools=None if guarded.tools is None else list(guarded.tools),
                chat_template=self.source,
                return_assistant_tokens_mask=self.marks_answers,
                add_generation_prompt=ask,
                strftime_now=self._told_day,
                **self._special,
            )
        except Exception as error:  # jinja2 raises many kinds; each is the template's refusal of these messages
            raise TemplateRefusal(
                f"The chat template cannot render this conversation: {first_line(error)[:_MAX_WORDS]}. "
                "Change the data, or set policy.chatTemplate."
            ) from error
        for character in guarded.stand_ins:
            if json.dumps(character)[1:-1] in texts[0]:
                raise TemplateRefusal(
                    f"The chat template spells {guarded.stand_ins[character]!r} of the text in escapes, so that it cannot be kept "
                    "apart from the template's own. Remove it from the text."
                )
        for message in guarded.messages[:until]:
            if message["role"] in _HEARD and not _stands_in(message["content"], texts[0]):
                raise TemplateRefusal(
                    f"The chat template leaves out what the {message['role']} says. Change the data, or set policy.chatTemplate."
                )
        return texts[0], [(start, end) for start, end in spans[0]] if spans else []

    def _told_day(self, form: str) -> str:
        """Of seconds since 1970, another one in each time zone of a machine."""
        if _SECONDS.search(form.replace("%%", "")):
            raise ValueError(f"it asks for the time as {form!r}, which differs between machines")
        return self._day.strftime(form)

    def _handed(self, message: Message) -> dict[str, Any]:
        """As the template gets it. Whether its loss is counted is no business of the template."""
        found = {name: value for name, value in message.items() if name != "train"}
        if self.in_parts:
            found["content"] = [{"type": "text", "text": message["content"]}]
        if "reasoning_content" in found:
            # Templates call it by either name.
            found["thinking"] = found["reasoning_content"]
        return found


def _any_of(tokens: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _stands_in(content: str, text: str) -> bool:
    return any(form in text for form in _written_forms(content.strip()))


def times_in(name: str, text: str) -> int:
    """How often it stands there as a word of its own."""
    return max(len(re.findall(rf"(?<!\w){re.escape(form)}(?!\w)", text)) for form in _written_forms(name))


def _written_forms(said: str) -> Iterator[str]:
    """As it is, or as JSON has it: some templates write a tool's answer so."""
    yield said
    yield json.dumps(said, ensure_ascii=False)[1:-1]
    yield json.dumps(said)[1:-1]


def _stands_anywhere(controls: re.Pattern[str], messages: Sequence[Message], tools: Sequence[Any] | None) -> bool:
    if tools is None and all(len(message) == len(_ALWAYS) for message in messages):
        return any(controls.search(message["content"]) for message in messages)
    return _any_text(controls.search, [messages, tools])


def control_tokens(tokenizer: Any) -> list[str]:
    """The tokens that mean something to the model beyond their letters, the longest first: one may begin with another."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = {str(token.content) for token in added if token.special} | {str(token) for token in tokenizer.all_special_tokens}
    return sorted(found - {""}, key=lambda token: (-len(token), token))


def _any_text(function: Callable[[str], object], value: Any) -> bool:
    if isinstance(value, str):
        return bool(function(value))
    if isinstance(value, Mapping):
        return any(_any_text(function, item) for pair in value.items() for item in pair)
    if isinstance(value, Sequence):
        return any(_any_text(function, item) for item in value)
    return False


def _all_matches(pattern: re.Pattern[str], value: Any) -> set[str]:
    found: set[str] = set()
    _any_text(lambda text: found.update(pattern.findall(text)), value)
    return found


def _mapped(function: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {function(str(key)): _mapped(function, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_mapped(function, item) for item in value]
    return value
