"""Rows of a layout, read into what is trained on and asked; what cannot be used is counted by reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rlhf_api.resource.data import DataLayout, DataSource, PromptSource, Source

from .columns import (
    LOOKED_AT,
    PROMPTS,
    RESPONSE_LISTS,
    RESPONSES,
    SCORE_LISTS,
    SCORES,
    SYSTEMS,
    answer_column,
    columns_of,
    demonstration_columns,
    demonstration_layout,
    preference_columns,
    preference_layout,
    present,
    question_column,
    question_columns,
)
from .messages import (
    Message,
    as_conversation,
    as_question,
    functions_of,
    json_messages,
    require_order,
    require_tools_once,
    tools_of,
    unread_fields,
)
from .rows import Row, Tally, Unparsable, Unusable, require_unicode, shown

_T = TypeVar("_T")
_Found = TypeVar("_Found", covariant=True)
#: What the column tools holds. Raises Unusable.
ReadTools = Callable[[object], list[Any] | None]

#: What belongs to a conversation and is not read: a row that has it is not the conversation that it was.
_NOT_READ = ("images", "image", "videos", "video", "audios", "audio", "history")


@dataclass(frozen=True)
class Demonstration:
    row: int
    messages: tuple[Message, ...]
    tools: list[Any] | None = None

    @property
    def asked(self) -> list[tuple[Message, ...]]:
        """What each answer of it is an answer to."""
        return [self.messages[:i] for i, message in enumerate(self.messages) if message["role"] == "assistant"]


@dataclass(frozen=True)
class Preference:
    """margin: of the scores, where the row has both."""

    row: int
    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    margin: float | None = None
    tools: list[Any] | None = None

    @property
    def asked(self) -> list[tuple[Message, ...]]:
        """As of a demonstration."""
        return [self.prompt]


@dataclass(frozen=True)
class Question:
    """answer: what the answer column holds; None where the source names none."""

    row: int
    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    answer: object = None


@dataclass(frozen=True)
class Reader(Generic[_Found]):
    """What the rows of one source are read into. columns: those that are read."""

    source: Source
    layout: DataLayout | None
    of_row: Callable[[int, Row], _Found]
    columns: frozenset[str]

    def read(self, rows: Sequence[Row | Unparsable], first: int = 1) -> tuple[list[_Found], Tally]:
        """Of some of the rows, of which the first has number `first`."""
        layout = str(self.layout) if self.layout is not None else ""
        tally = Tally(self.source, layout=layout, rows=len(rows), columns_read=self.columns)
        found: list[_Found] = []
        for number, row in enumerate(rows, start=first):
            tally.see(number, row)
            try:
                if isinstance(row, Unparsable):
                    raise Unusable("unparsable", row.words)
                if carried := [name for name in _NOT_READ if row.get(name)]:
                    raise Unusable(
                        "columnNotRead", f"column {carried[0]} belongs to the conversation, and this version does not read it"
                    )
                if isinstance(row.get("label"), bool):
                    raise Unusable("columnNotRead", "column label says whether the answer is good, and is not read here")
                require_unicode(row)
                if number <= LOOKED_AT:
                    tally.unread |= {field for name, value in row.items() if name != "tools" for field in unread_fields(value)}
                found.append(self.of_row(number, row))
            except Unusable as problem:
                tally.leave_out(number, problem)
        return found, tally


def demonstrations_of(
    source: DataSource, head: Sequence[Row | Unparsable], field: str, read_tools: ReadTools = tools_of
) -> Reader[Demonstration]:
    """Conversations that end with the assistant, by the first rows of the source. `field`: of the manifest, for messages.

    `read_tools`: functions_of in a run whose prompts have tools. Raises ConfigurationProblem.
    """
    columns = columns_of(source, head)
    layout, column = demonstration_layout(source, columns, field)

    def read(number: int, row: Row) -> Demonstration:
        if layout is DataLayout.MESSAGES:
            messages = _conversation(row, column, source)
        else:
            messages = (
                *_asked(row, column, source),
                {"role": "assistant", "content": _text(row, present(columns, RESPONSES)[0])},
            )
        messages = _with_system(row, _up_to_last_answer(messages))
        require_order(messages, ends_with="assistant")
        return Demonstration(number, messages, read_tools(row.get("tools")))

    return Reader(source, layout, read, demonstration_columns(layout, column, columns))


def preferences_of(
    source: DataSource, head: Sequence[Row | Unparsable], field: str, read_tools: ReadTools = tools_of
) -> Reader[Preference]:
    """Pairs of answers to one prompt, by the first rows of the source; as of demonstrations. Raises ConfigurationProblem."""
    columns = columns_of(source, head)
    layout = preference_layout(source, columns, head, field)
    prompts = present(columns, PROMPTS)

    def read(number: int, row: Row) -> Preference:
        tools = read_tools(row.get("tools"))
        margin = None if layout is DataLayout.RESPONSES_WITH_SCORES else _margin(row)
        if layout is DataLayout.RESPONSES_WITH_SCORES:
            prompt = _with_system(row, _asked(row, prompts[0], source))
            chosen, rejected, margin = _best_and_worst(row, columns)
        elif layout is DataLayout.PROMPT_CHOSEN_REJECTED:
            prompt = _with_system(row, _asked(row, prompts[0], source))
            chosen, rejected = (_answer(row, side, source) for side in ("chosen", "rejected"))
        else:
            sides = [_with_system(row, _conversation(row, side, source)) for side in ("chosen", "rejected")]
            for side in sides:
                require_order(side, ends_with="assistant")
            if sides[0][:-1] != sides[1][:-1]:
                raise Unusable("differentPrompts", "chosen and rejected answer different prompts")
            prompt, chosen, rejected = sides[0][:-1], sides[0][-1], sides[1][-1]
        require_order(prompt, ends_with="tool" if prompt and prompt[-1]["role"] == "tool" else "user")
        return Preference(number, prompt, chosen, rejected, margin, tools)

    return Reader(source, layout, read, preference_columns(layout, columns))


def questions_of(source: PromptSource, head: Sequence[Row | Unparsable], field: str) -> Reader[Question]:
    """What the policy is asked, by the first rows: conversations that end with the user. Raises ConfigurationProblem."""
    columns = columns_of(source, head)
    column = question_column(source, columns, field)
    answers = answer_column(source, columns, column, field)

    def read(number: int, row: Row) -> Question:
        tools = functions_of(row.get("tools"))
        messages = _with_system(row, _asked(row, column, source))
        for message in messages:
            if extra := sorted(set(message) - {"role", "content", "train", "name"}):
                raise Unusable("toolsNotSampled", f"a turn of the {message['role']} has {', '.join(extra)}, which is not sampled")
        require_order(messages, ends_with="user")
        if tools is not None:
            require_tools_once(messages, tools)
        answer = None if answers is None else row.get(answers)
        return Question(number, tuple({"role": m["role"], "content": m["content"]} for m in messages), tools, answer)

    return Reader(source, None, read, question_columns(column) | ({answers} if answers is not None else set()))


def _of(row: Row, column: str) -> Any:
    if column not in row:
        raise Unusable("columnMissing", f"there is no column {column}")
    return row[column]


def _conversation(row: Row, column: str, source: Source) -> tuple[Message, ...]:
    try:
        return as_conversation(_of(row, column), source.roles)
    except Unusable as problem:
        raise _in_column(column, problem) from problem


def _question(row: Row, column: str, source: Source) -> tuple[Message, ...]:
    try:
        return as_question(_of(row, column), source.roles)
    except Unusable as problem:
        raise _in_column(column, problem) from problem


def _in_column(column: str, problem: Unusable) -> Unusable:
    return Unusable(problem.reason, f"column {column}: {problem.words}")


def _text(row: Row, column: str) -> str:
    value = _of(row, column)
    if not isinstance(value, str):
        raise Unusable("null" if value is None else "contentNotText", f"column {column} holds {shown(value)}; expected text")
    if not value.strip():
        raise Unusable("emptyTurn", f"column {column} is empty")
    return value


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == []


def _asked(row: Row, column: str, source: Source) -> tuple[Message, ...]:
    """The prompt of a column of its own; an instruction goes on in `input`."""
    if column in PROMPTS and not _is_blank(row.get("context")):
        raise Unusable("columnNotRead", "column context belongs to the question, and is not read; write it into the prompt")
    if column == "instruction" and not _is_blank(row.get("input")):
        return ({"role": "user", "content": f"{_text(row, column)}\n\n{_text(row, 'input')}"},)
    return _question(row, column, source)


def _answer(row: Row, side: str, source: Source) -> Message:
    value = _of(row, side)
    if isinstance(value, str) and json_messages(value) is None:
        return {"role": "assistant", "content": _text(row, side)}
    messages = _conversation(row, side, source)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise Unusable("answerNotAlone", f"{side} holds {len(messages)} turns; beside a prompt of its own, one of the assistant")
    return messages[0]


def _with_system(row: Row, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    for column in SYSTEMS:
        if _is_blank(row.get(column)):
            continue
        value = _text(row, column)
        if messages[0]["role"] == "system":
            if messages[0]["content"].strip() == value.strip():
                return messages
            raise Unusable("twoSystemTurns", f"column {column} has a system prompt, and the conversation another")
        return ({"role": "system", "content": value}, *messages)
    return messages


def _up_to_last_answer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A question that nobody answers teaches nothing."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        raise Unusable("noAnswer", "the assistant says nothing in it")
    return messages[: last + 1]


def _best_and_worst(row: Row, columns: Sequence[str]) -> tuple[Message, Message, float]:
    names = present(columns, RESPONSE_LISTS)[0], present(columns, SCORE_LISTS)[0]
    responses, scores = (_of(row, name) for name in names)
    lists = all(isinstance(value, Sequence) and not isinstance(value, str) for value in (responses, scores))
    if not lists or len(responses) != len(scores) or len(scores) < 2:
        raise Unusable("scoresDoNotFit", f"{names[0]} and {names[1]} are not two lists of one length, of two or more")
    numbers = [_score(names[1], score) for score in scores]
    best, worst = max(range(len(numbers)), key=numbers.__getitem__), min(range(len(numbers)), key=numbers.__getitem__)
    for index in (best, worst):
        if not isinstance(responses[index], str) or not responses[index].strip():
            raise Unusable("emptyTurn", f"{names[0]} holds {shown(responses[index])}; expected text")
    chosen, rejected = ({"role": "assistant", "content": responses[index]} for index in (best, worst))
    return chosen, rejected, numbers[best] - numbers[worst]


def _margin(row: Row) -> float | None:
    if row.get("margin") is not None:
        return _score("margin", row["margin"])
    for pair in SCORES:
        if all(row.get(name) is not None for name in pair):
            chosen, rejected = (_score(name, row[name]) for name in pair)
            return chosen - rejected
        for name in pair:
            if row.get(name) is not None:
                _score(name, row[name])
    return None


def _score(column: str, value: object) -> float:
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Unusable("scoreNotFinite", f"column {column} holds {shown(value)}, which is no finite number")
    return found
