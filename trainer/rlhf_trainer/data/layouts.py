"""How rows hold conversations: recognised by their columns, and read into what is trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlhf_api.resource.data import DataLayout, DataSource, PromptSource, Source
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .messages import Message, as_conversation, as_question, is_transcript, json_messages, require_order, tools_of
from .rows import Row, Tally, Unparsable, Unusable, shown

_T = TypeVar("_T")

#: Columns that hold a whole conversation; each may be a list of messages.
_CONVERSATIONS = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "question", "instruction", "query")
_RESPONSES = ("response", "completion", "output", "answer")
_RESPONSE_LISTS = ("responses", "completions")
_SCORE_LISTS = ("rewards", "scores")
_SCORES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating"))
_SYSTEMS = ("system", "system_prompt")
#: Of prompts alone; the published prompt sets of the paper's authors have the first.
_QUESTIONS = ("context_messages", "conversations", "prompt", "question", "instruction")
#: What belongs to a conversation and is not read: a row that has it is not the conversation that it was.
_NOT_READ = ("images", "image", "videos", "video", "audios", "audio", "history")
#: Ratings of one answer by several attributes, as HelpSteer has them.
_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
#: Rows that are looked at for columns.
_LOOKED_AT = 1000


@dataclass(frozen=True)
class Demonstration:
    row: int
    messages: tuple[Message, ...]
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Preference:
    """margin: of the scores, where the row has both."""

    row: int
    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    margin: float | None = None
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Question:
    row: int
    messages: tuple[Message, ...]


def read_demonstrations(source: DataSource, rows: Sequence[Row | Unparsable], field: str) -> tuple[list[Demonstration], Tally]:
    """Conversations that end with the assistant. `field`: of the manifest, for messages. Raises ConfigurationProblem."""
    columns = _columns(source, rows)
    layout, column = _demonstration_layout(source, columns, field)

    def read(number: int, row: Row) -> Demonstration:
        if layout is DataLayout.MESSAGES:
            messages = _conversation(row, column, source)
        else:
            messages = (
                *_asked(row, column, source),
                {"role": "assistant", "content": _text(row, _present(columns, _RESPONSES)[0])},
            )
        messages = _with_system(row, _up_to_last_answer(messages))
        require_order(messages, ends_with="assistant")
        return Demonstration(number, messages, tools_of(row.get("tools")))

    return _read(source, rows, layout, read)


def read_preferences(source: DataSource, rows: Sequence[Row | Unparsable], field: str) -> tuple[list[Preference], Tally]:
    """Pairs of answers to one prompt. Raises ConfigurationProblem."""
    columns = _columns(source, rows)
    layout = _preference_layout(source, columns, rows, field)
    prompts = _present(columns, _PROMPTS)

    def read(number: int, row: Row) -> Preference:
        tools = tools_of(row.get("tools"))
        margin = _margin(row)
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

    return _read(source, rows, layout, read)


def read_questions(source: PromptSource, rows: Sequence[Row | Unparsable], field: str) -> tuple[list[Question], Tally]:
    """What the policy is asked: conversations that end with the user. Raises ConfigurationProblem."""
    column = _question_column(source, _columns(source, rows), field)

    def read(number: int, row: Row) -> Question:
        if tools_of(row.get("tools")) is not None:
            raise Unusable("toolsNotSampled", "it has tools, and this version samples no answers that call them")
        messages = _with_system(row, _asked(row, column, source))
        for message in messages:
            if extra := sorted(set(message) - {"role", "content", "train", "name"}):
                raise Unusable("toolsNotSampled", f"a turn of the {message['role']} has {', '.join(extra)}, which is not sampled")
        require_order(messages, ends_with="user")
        return Question(number, tuple({"role": m["role"], "content": m["content"]} for m in messages))

    return _read(source, rows, None, read)


def _read(
    source: Source, rows: Sequence[Row | Unparsable], layout: DataLayout | None, read: Callable[[int, Row], _T]
) -> tuple[list[_T], Tally]:
    tally = Tally(source, layout=str(layout) if layout is not None else "", rows=len(rows))
    found: list[_T] = []
    for number, row in enumerate(rows, start=1):
        try:
            if isinstance(row, Unparsable):
                raise Unusable("unparsable", row.words)
            if carried := [name for name in _NOT_READ if row.get(name)]:
                raise Unusable(
                    "columnNotRead", f"column {carried[0]} belongs to the conversation, and this version does not read it"
                )
            found.append(read(number, row))
        except Unusable as problem:
            tally.leave_out(number, problem)
    tally.used = len(found)
    return found, tally


# --- recognition ---


def _columns(source: Source, rows: Sequence[Row | Unparsable]) -> list[str]:
    """Raises ConfigurationProblem where none of the first rows is one."""
    found: dict[str, None] = {}
    unparsable: Unparsable | None = None
    for row in rows[:_LOOKED_AT]:
        if isinstance(row, Unparsable):
            unparsable = unparsable or row
        else:
            found |= dict.fromkeys(row)
    if unparsable is not None and not found:
        raise ConfigurationProblem(f"{source.uri}: {unparsable.words}.")
    return list(found)


def _present(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if name in columns]


def _demonstration_layout(source: DataSource, columns: Sequence[str], field: str) -> tuple[DataLayout, str]:
    """And the column of the conversation, or of the prompt."""
    prompts, responses = _present(columns, _PROMPTS), _present(columns, _RESPONSES)
    if source.layout is DataLayout.PROMPT_RESPONSE:
        _one(source, columns, "the prompt", prompts, field)
        _one(source, columns, "the response", responses, field)
        return DataLayout.PROMPT_RESPONSE, prompts[0]
    if source.layout not in (None, DataLayout.MESSAGES):
        raise ConfigurationProblem(f"{field}.layout is {source.layout}, and demonstrations are Messages or PromptResponse.")
    if source.column is not None:
        _require_column(source, columns, source.column, field)
        return DataLayout.MESSAGES, source.column
    if "messages" in columns:
        return DataLayout.MESSAGES, "messages"
    conversations = _present(columns, _CONVERSATIONS)
    if source.layout is None and conversations and prompts and responses:
        raise ConfigurationProblem(
            f"{source.uri} fits two layouts: column {conversations[0]} may hold conversations, and {prompts[0]} and {responses[0]} "
            f"prompts and responses. Set {field}.layout: Messages or PromptResponse."
        )
    if conversations:
        _one(source, columns, "the conversation", conversations, field)
        return DataLayout.MESSAGES, conversations[0]
    if source.layout is None and len(prompts) == 1 and len(responses) == 1:
        return DataLayout.PROMPT_RESPONSE, prompts[0]
    raise ConfigurationProblem(
        f"{source.uri} fits no layout of demonstrations (its columns are {_listed(columns)}): there is no column messages, and no "
        f"prompt with a response. Set {field}.column to the one with the conversations."
    )


def _preference_layout(source: DataSource, columns: Sequence[str], rows: Sequence[Row | Unparsable], field: str) -> DataLayout:
    prompts = _present(columns, _PROMPTS)
    lists = bool(_present(columns, _RESPONSE_LISTS) and _present(columns, _SCORE_LISTS) and prompts)
    sides = {"chosen", "rejected"} <= set(columns)
    wanted = source.layout
    if wanted in (DataLayout.MESSAGES, DataLayout.PROMPT_RESPONSE):
        raise ConfigurationProblem(
            f"{field}.layout is {wanted}, and preferences are ChosenRejected, PromptChosenRejected or ResponsesWithScores."
        )
    if wanted is None and lists and sides:
        raise ConfigurationProblem(
            f"{source.uri} fits two layouts: it has chosen and rejected, and responses with scores (its columns are "
            f"{_listed(columns)}). Set {field}.layout."
        )
    if wanted is DataLayout.RESPONSES_WITH_SCORES or (wanted is None and lists):
        if not lists:
            raise ConfigurationProblem(
                f"{source.uri} has no prompt with responses and rewards (its columns are {_listed(columns)})."
            )
        _one(source, columns, "the prompt", prompts, field)
        return DataLayout.RESPONSES_WITH_SCORES
    if not sides:
        attributes = _present(columns, _ATTRIBUTES)
        told = f" {', '.join(attributes)} rate one answer; this version trains on pairs." if attributes else ""
        raise ConfigurationProblem(
            f"{source.uri} needs columns chosen and rejected (it has {_listed(columns)}).{told} Name another data set, or write "
            "the pairs into these columns."
        )
    if wanted is DataLayout.CHOSEN_REJECTED or (wanted is None and _are_whole(source, rows)):
        return DataLayout.CHOSEN_REJECTED
    if not prompts:
        raise ConfigurationProblem(
            f"{source.uri}: chosen and rejected hold answers alone, and no column has the prompt (its columns are "
            f"{_listed(columns)}). Call the one with the prompt prompt."
        )
    _one(source, columns, "the prompt", prompts, field)
    return DataLayout.PROMPT_CHOSEN_REJECTED


def _are_whole(source: DataSource, rows: Sequence[Row | Unparsable]) -> bool:
    """Whether chosen holds the prompt, too: it does not begin with the assistant, and is no plain text."""
    for row in rows[:_LOOKED_AT]:
        value = None if isinstance(row, Unparsable) else row.get("chosen")
        if isinstance(value, str):
            return is_transcript(value) or json_messages(value) is not None
        if value:
            try:
                return bool(as_conversation(value, source.roles)[0]["role"] != "assistant")
            except Unusable:
                continue
    return True


def _question_column(source: PromptSource, columns: Sequence[str], field: str) -> str:
    if source.column in columns:
        return source.column
    found = _present(columns, _QUESTIONS) if source.column == PromptSource.model_fields["column"].default else []
    if len(found) > 1:
        raise ConfigurationProblem(
            f"{source.uri} has no column messages, and {_listed(found)} may each be the prompt. Set {field}.column."
        )
    if not found:
        _require_column(source, columns, source.column, field)
    return found[0]


def _require_column(source: Source, columns: Sequence[str], column: str, field: str) -> None:
    if column not in columns:
        raise ConfigurationProblem(f"{source.uri} has no column {column!r} (it has {_listed(columns)}). Set {field}.column.")


def _one(source: Source, columns: Sequence[str], what: str, found: Sequence[str], field: str) -> None:
    if len(found) != 1:
        told = f"{_listed(found)} may each hold {what}" if found else f"no column holds {what}"
        raise ConfigurationProblem(f"{source.uri}: {told} (its columns are {_listed(columns)}). Set {field}.column or layout.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


# --- rows ---


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


def _asked(row: Row, column: str, source: Source) -> tuple[Message, ...]:
    """The prompt of a column of its own; an instruction goes on in `input`."""
    value = row.get(column)
    if column == "instruction" and isinstance(value, str) and isinstance(row.get("input"), str) and row["input"].strip():
        return ({"role": "user", "content": f"{value}\n\n{row['input']}"},)
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
    for column in _SYSTEMS:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            continue
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
    names = _present(columns, _RESPONSE_LISTS)[0], _present(columns, _SCORE_LISTS)[0]
    responses, scores = (_of(row, name) for name in names)
    if not isinstance(responses, Sequence) or not isinstance(scores, Sequence) or len(responses) != len(scores) or len(scores) < 2:
        raise Unusable("scoresDoNotFit", f"{names[0]} and {names[1]} are not two lists of one length, of two or more")
    numbers = [_score(names[1], score) for score in scores]
    best, worst = max(range(len(numbers)), key=numbers.__getitem__), min(range(len(numbers)), key=numbers.__getitem__)
    for index in (best, worst):
        if not isinstance(responses[index], str) or not responses[index].strip():
            raise Unusable("emptyTurn", f"{names[0]} holds {shown(responses[index])}; expected text")
    chosen, rejected = ({"role": "assistant", "content": responses[index]} for index in (best, worst))
    return chosen, rejected, numbers[best] - numbers[worst]


def _margin(row: Row) -> float | None:
    for pair in _SCORES:
        if all(row.get(name) is not None for name in pair):
            chosen, rejected = (_score(name, row[name]) for name in pair)
            return chosen - rejected
        for name in pair:
            if row.get(name) is not None:
                _score(name, row[name])
    return None


def _score(column: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unusable("scoreNotFinite", f"column {column} holds {shown(value)}, which is no finite number")
    return float(value)
