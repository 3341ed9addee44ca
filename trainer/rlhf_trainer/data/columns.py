"""What the columns of a data set hold, by their names: which layout its rows have. One that fits two, or none, is refused."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_api.resource.data import DataLayout, DataSource, PromptSource, Source
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .messages import as_conversation, is_transcript, json_messages
from .rows import Row, Unparsable, Unusable

#: Columns that hold a whole conversation; each may be a list of messages.
_CONVERSATIONS = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "question", "instruction", "query")
RESPONSES = ("response", "completion", "output", "answer")
RESPONSE_LISTS = ("responses", "completions")
SCORE_LISTS = ("rewards", "scores")
#: Of a pair, where they are numbers of one scale.
SCORES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
)
SYSTEMS = ("system", "system_prompt")
#: Of a conversation, in columns of their own.
_BESIDE = (*SYSTEMS, "tools")
#: Of prompts alone; the published prompt sets of the paper's authors have the first.
_QUESTIONS = ("context_messages", "conversations", "prompt", "question", "instruction")
#: Ratings of one answer by several attributes, as HelpSteer has them.
_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
#: Rows that are looked at for columns.
LOOKED_AT = 1000


def columns_of(source: Source, rows: Sequence[Row | Unparsable]) -> list[str]:
    """Raises ConfigurationProblem where none of the first rows is one."""
    found: dict[str, None] = {}
    unparsable: Unparsable | None = None
    for row in rows[:LOOKED_AT]:
        if isinstance(row, Unparsable):
            unparsable = unparsable or row
        else:
            found |= dict.fromkeys(row)
    if unparsable is not None and not found:
        raise ConfigurationProblem(f"{source.uri}: {unparsable.words}.")
    return list(found)


def present(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if name in columns]


def demonstration_layout(source: DataSource, columns: Sequence[str], field: str) -> tuple[DataLayout, str]:
    """And the column of the conversation, or of the prompt."""
    prompts, responses = present(columns, PROMPTS), present(columns, RESPONSES)
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
    conversations = present(columns, _CONVERSATIONS)
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
        f"prompt with a response. Set {field}.column to the one that holds lists of messages or transcripts of Human: and "
        "Assistant:; of another form, write one conversation a row into messages."
    )


def preference_layout(source: DataSource, columns: Sequence[str], rows: Sequence[Row | Unparsable], field: str) -> DataLayout:
    prompts = present(columns, PROMPTS)
    lists = bool(present(columns, RESPONSE_LISTS) and present(columns, SCORE_LISTS) and prompts)
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
                f"{source.uri} has no prompt with lists responses and rewards (its columns are {_listed(columns)}). Call them so."
            )
        _one(source, columns, "the prompt", prompts, field)
        return DataLayout.RESPONSES_WITH_SCORES
    if not sides:
        attributes = present(columns, _ATTRIBUTES)
        told = f" {', '.join(attributes)} rate one answer; this version trains on pairs." if attributes else ""
        raise ConfigurationProblem(
            f"{source.uri} needs columns chosen and rejected, or a prompt with lists responses and scores (it has "
            f"{_listed(columns)}).{told} Write the better and the worse answer of a row into chosen and rejected, beside prompt."
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
    for row in rows[:LOOKED_AT]:
        value = None if isinstance(row, Unparsable) else row.get("chosen")
        if isinstance(value, str):
            return is_transcript(value) or json_messages(value) is not None
        if value:
            try:
                return bool(as_conversation(value, source.roles)[0]["role"] != "assistant")
            except Unusable:
                continue
    return True


def question_column(source: PromptSource, columns: Sequence[str], field: str) -> str:
    if source.column in columns:
        return source.column
    found = present(columns, _QUESTIONS) if source.column == PromptSource.model_fields["column"].default else []
    if len(found) > 1:
        raise ConfigurationProblem(
            f"{source.uri} has no column messages, and {_listed(found)} may each be the prompt. Set {field}.column."
        )
    if not found:
        _require_column(source, columns, source.column, field)
    return found[0]


def answer_column(source: PromptSource, columns: Sequence[str], column: str, field: str) -> str | None:
    """Where the reference answer stands; None where none is named. Raises ConfigurationProblem where the policy reads it."""
    name = source.answer_column
    if name is None:
        return None
    if name not in columns:
        raise ConfigurationProblem(
            f"{source.uri} has no column {name!r} (it has {_listed(columns)}). Set {field}.answerColumn to the one with the answer."
        )
    if name in question_columns(column):
        raise ConfigurationProblem(
            f"{field}.answerColumn is {name}, which the policy is asked with: it would read the answer. Name a column of its own."
        )
    return name


def demonstration_columns(layout: DataLayout, column: str, columns: Sequence[str]) -> frozenset[str]:
    """Those that are read."""
    if layout is DataLayout.PROMPT_RESPONSE:
        return frozenset([*_of_question(column), *present(columns, RESPONSES)[:1]])
    return frozenset([column, *_BESIDE])


def preference_columns(layout: DataLayout, columns: Sequence[str]) -> frozenset[str]:
    """Those that are read."""
    asked = [*_BESIDE] if layout is DataLayout.CHOSEN_REJECTED else _of_question(present(columns, PROMPTS)[0])
    if layout is DataLayout.RESPONSES_WITH_SCORES:
        return frozenset([*asked, *present(columns, RESPONSE_LISTS)[:1], *present(columns, SCORE_LISTS)[:1]])
    scores = [name for pair in SCORES if set(pair) <= set(columns) for name in pair]
    return frozenset([*asked, "chosen", "rejected", "margin", *scores])


def question_columns(column: str) -> frozenset[str]:
    """Those that are read."""
    return frozenset(_of_question(column))


def _of_question(column: str) -> list[str]:
    """An instruction goes on in `input`."""
    return [column, *(["input"] if column == "instruction" else []), *_BESIDE]


def _require_column(source: Source, columns: Sequence[str], column: str, field: str) -> None:
    if column not in columns:
        raise ConfigurationProblem(f"{source.uri} has no column {column!r} (it has {_listed(columns)}). Set {field}.column.")


def _one(source: Source, columns: Sequence[str], what: str, found: Sequence[str], field: str) -> None:
    if len(found) != 1:
        told = f"{_listed(found)} may each hold {what}" if found else f"no column holds {what}"
        raise ConfigurationProblem(f"{source.uri}: {told} (its columns are {_listed(columns)}). Set {field}.column or layout.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"
