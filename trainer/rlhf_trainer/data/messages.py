"""Conversations: from what a row holds to messages with a role and what goes with it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .rows import KeyTwice, Unusable, json_of, require_unicode, shown

#: role, content (text); where there are any: tool_calls, tool_call_id, name, reasoning_content; train: False where its loss is not
#: to be counted.
Message = Mapping[str, Any]
#: What a conversation may call: JSON schemas of functions.
Tools = Sequence[Any] | None

#: What people call the roles, in lower case.
_ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
#: Objects in a JSON schema that are no parameters.
_OF_SCHEMAS = ("additionalProperties", "patternProperties", "$defs", "definitions", "default")
#: Where other interfaces have the schema of the parameters.
_SCHEMAS = ("input_schema", "inputSchema")
_FUNCTION = (
    'write {"type": "function", "function": {"name": …, "description": …, "parameters": {"type": "object", "properties": {…}}}}'
)
_CARRIED = ("tool_calls", "tool_call_id", "name", "reasoning_content")
#: Another word for the reasoning.
_THINKING = "thinking"
#: Says of a turn whether it is trained on: 0 or 1; true or false.
_FLAGS = ("weight", "train", "loss")
_READ = frozenset({"role", "from", "content", "value", _THINKING, *_CARRIED, *_FLAGS})
#: What json says of a text; the second, that it is nested deeper than can be read.
_NOT_JSON = (ValueError, RecursionError)
#: Anthropic's transcripts; each turn begins with two line breaks.
_TURN = re.compile(r"\n\n(Human|Assistant):(?: |(?=\n)|$)")


def as_conversation(value: object, roles: Mapping[str, str] | None = None) -> tuple[Message, ...]:
    """Messages from what a column holds: a list of them, the same as JSON text, or a transcript of Human and Assistant.

    `roles`: what the source says of role names beyond the usual ones. Raises Unusable.
    """
    if isinstance(value, str):
        if (listed := json_messages(value)) is not None:
            require_unicode(listed)
            return _messages(listed, roles or {})
        if is_transcript(value):
            return tuple(transcript(value))
        raise Unusable("noConversation", f"{shown(value)} is text; expected a list of messages with role and content")
    if value is None:
        raise Unusable("null", "there is null; expected a list of messages with role and content")
    if not isinstance(value, Sequence):
        raise Unusable("noConversation", f"{shown(value)} is no list of messages with role and content")
    return _messages(value, roles or {})


def as_question(value: object, roles: Mapping[str, str] | None = None) -> tuple[Message, ...]:
    """The same, where text that is neither is what a user says. Raises Unusable."""
    if isinstance(value, str) and json_messages(value) is None and not is_transcript(value):
        if not value.strip():
            raise Unusable("emptyTurn", "the text is empty")
        return ({"role": "user", "content": value},)
    return as_conversation(value, roles)


def require_order(messages: Sequence[Message], *, ends_with: str) -> None:
    """Raises Unusable unless the roles follow each other as they do when people talk, `ends_with` being the last."""
    before = ""
    for number, message in enumerate(messages, start=1):
        role = message["role"]
        if role == "assistant" and before in ("", "system", "developer"):
            raise Unusable("turnsOutOfOrder", "the conversation begins with the assistant")
        if role == before and role in ("user", "assistant"):
            raise Unusable("turnsOutOfOrder", f"turns {number - 1} and {number} are both of the {role}")
        before = role
    if before != ends_with:
        raise Unusable("turnsOutOfOrder", f"it ends with a turn of the {before or 'nobody'}, and not of the {ends_with}")


def unread_fields(value: object) -> set[str]:
    """Names of what messages hold beyond what is read of them."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return set()
    return {str(key) for item in value if isinstance(item, Mapping) for key in item if item[key] is not None} - _READ


def json_messages(text: str) -> list[Any] | None:
    """A list of messages that was written as JSON text; None where the text is not one. Raises Unusable where it says one thing
    twice.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except _NOT_JSON:
        return None
    if not isinstance(found, list) or not found:
        return None
    if not all(isinstance(item, dict) and ("role" in item or "from" in item) for item in found):
        return None
    try:
        json_of(text)
    except KeyTwice as problem:
        raise Unusable("keyTwice", f"{shown(text)}: {problem}; keep one of them") from None
    return found


def is_transcript(text: str) -> bool:
    return _TURN.match(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}") is not None


def transcript(text: str) -> list[Message]:
    """`\\n\\nHuman: … \\n\\nAssistant: …` in turns; an Assistant at the end that says nothing yet is left out. Raises Unusable."""
    parts = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    turns = [(speaker, said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)]
    if turns and turns[-1] == ("Assistant", ""):
        turns = turns[:-1]
    if not turns:
        raise Unusable("emptyConversation", "nobody says anything in it")
    for speaker, said in turns:
        if not said:
            raise Unusable("emptyTurn", f"a turn of {speaker} says nothing")
    return [{"role": "user" if speaker == "Human" else "assistant", "content": said} for speaker, said in turns]


def tools_of(value: object) -> list[Any] | None:
    """The column `tools` of a row: a list of JSON schemas, or the same as JSON text. None where it has none. Raises Unusable."""
    if isinstance(value, str):
        value = _json(value) if value.strip() else None
    if value is None:
        return None
    require_unicode(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, Mapping) for item in value):
        raise Unusable("toolsNotReadable", f"tools holds {shown(value)}; expected a list of JSON schemas")
    return [dict(item) for item in value] or None


def functions_of(value: object) -> list[Any] | None:
    """The same, where it holds functions: each in the form of OpenAI's API, in which servers hand them to a chat template.

    `{"type": "function", "function": {"name": …, "description": …, "parameters": …}}`; one without the outer object gets it. A list
    may hold each as JSON text. Raises Unusable for what is no function, and for parameters that are no JSON schema of an object:
    templates that go through these write nothing of others.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = [_json(item) if isinstance(item, str) else item for item in value]
    found = tools_of(value)
    if found is None:
        return None
    functions = [_function(tool) for tool in found]
    try:
        json.dumps(functions, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable("toolsNotReadable", f"tools holds what JSON cannot: {error}") from None
    return functions


def names_of(tools: Sequence[Any]) -> list[str]:
    """Of functions, in OpenAI's form: their own names, and those of their parameters."""
    functions = [tool["function"] for tool in tools]
    parameters = [function.get("parameters") or {} for function in functions]
    return list(
        dict.fromkeys(
            [*(str(f["name"]) for f in functions), *(str(name) for p in parameters for name in p.get("properties") or {})]
        )
    )


def require_tools_once(messages: Sequence[Message], tools: Sequence[Any]) -> None:
    """Raises Unusable where a system turn lists the functions already: a template would write them a second time."""
    said = "\n".join(message["content"] for message in messages if message["role"] in ("system", "developer"))
    names = [re.escape(str(tool["function"]["name"])) for tool in tools]
    if said and all(re.search(rf"""["']name["']\s*:\s*["']{name}["']""", said) for name in names):
        raise Unusable(
            "toolsTwice",
            "its system turn lists the functions that are in the column tools, too, and the template would write them again; "
            "remove the column, or that turn",
        )


def _json(text: str, holder: str = "tools holds", reason: str = "toolsNotReadable") -> Any:
    try:
        return json_of(text)
    except KeyTwice as problem:
        raise Unusable(reason, f"{holder} {shown(text)}: {problem}; keep one of them") from None
    except _NOT_JSON:
        raise Unusable(reason, f"{holder} {shown(text)}, which is no JSON") from None


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    wrapped = "function" in tool
    own = tool["function"] if wrapped else {key: item for key, item in tool.items() if key != "type"}
    if tool.get("type", "function") != "function" or not isinstance(own, Mapping) or not isinstance(own.get("name"), str):
        raise Unusable("toolsNotReadable", f"tools holds {shown(tool)}, which is no function; {_FUNCTION}")
    parameters = own.get("parameters")
    for other in _SCHEMAS:
        if parameters is None and own.get(other) is not None:
            raise Unusable("toolsNotReadable", f"function {own['name']} has its parameters in {other}; {_FUNCTION}")
    if parameters is not None and not _is_schema(parameters):
        told = f"the parameters of function {own['name']} are {shown(parameters)}, which is no JSON schema of an object"
        raise Unusable("toolsNotReadable", f"{told}; {_FUNCTION}")
    return {"type": "function", **(tool if wrapped else {"function": own})}


def _is_schema(value: object) -> bool:
    """Of an object, or empty: no parameters."""
    if not isinstance(value, Mapping):
        return False
    properties = value.get("properties")
    if value.get("type", "object") != "object":
        return False
    if properties is None:
        # One that has them beside its type, where nobody looks for them, is none.
        return not any(isinstance(item, Mapping) for name, item in value.items() if name not in _OF_SCHEMAS)
    return isinstance(properties, Mapping) and all(isinstance(item, Mapping) for item in properties.values())


def _messages(items: Sequence[Any], roles: Mapping[str, str]) -> tuple[Message, ...]:
    if not items:
        raise Unusable("emptyConversation", "the list of messages is empty")
    return tuple(_message(item, roles) for item in items)


def _message(item: object, roles: Mapping[str, str]) -> Message:
    if not isinstance(item, Mapping):
        raise Unusable("noMessage", f"{shown(item)} is no message; a message has a role and a content")
    named = _one_of(item, "role", "from")
    role = roles.get(str(named)) or _ROLES.get(str(named).lower())
    if named is None or role is None:
        raise Unusable(
            "unknownRole", f"{shown(item)} has the role {shown(named)}; write under roles what it is: user, assistant, …"
        )
    found: dict[str, Any] = {"role": role}
    for name in _CARRIED:
        value = item.get(name)
        if value is not None and value != [] and value != "":
            found[name] = _calls(value) if name == "tool_calls" else value
    if thought := _one_of(item, "reasoning_content", _THINKING):
        found["reasoning_content"] = thought
    found["content"] = _content(item, calls="tool_calls" in found, role=role)
    if not _is_trained(item):
        found["train"] = False
    return found


def _one_of(item: Mapping[str, Any], name: str, other: str) -> Any:
    """What stands under either name; None where neither has anything. Raises Unusable where they differ."""
    values = [item[key] for key in (name, other) if item.get(key) is not None]
    said = [value for value in values if value not in ("", [])]
    if len(said) > 1 and said[0] != said[1]:
        raise Unusable("saidTwice", f"a message has {name} {shown(said[0])} and {other} {shown(said[1])}; keep one of them")
    return next(iter([*said, *values]), None)


def _content(item: Mapping[str, Any], *, calls: bool, role: str) -> str:
    value = _one_of(item, "content", "value")
    if value is None and calls:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = "".join(_part(part) for part in value)
    if value is None:
        raise Unusable("nullContent", f"a turn of the {role} has a content of null")
    if not isinstance(value, str):
        raise Unusable("contentNotText", f"a turn of the {role} has a content of {shown(value)}; expected text")
    if not value.strip() and not calls and role in ("user", "assistant"):
        raise Unusable("emptyTurn", f"a turn of the {role} says nothing")
    return value


def _part(part: object) -> str:
    """Of a content in parts: text, and nothing else."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise Unusable("contentNotText", f"a content has a part of type {shown(kind)}; this version reads text alone")


def _is_trained(item: Mapping[str, Any]) -> bool:
    for name in _FLAGS:
        value = item.get(name)
        if value is None or value in (0, 1):
            continue
        raise Unusable("weightNotRead", f"a message has {name} {shown(value)}; this version reads 0 and 1")
    return all(item.get(name) != 0 for name in _FLAGS)


def _calls(value: object) -> list[Any]:
    """Tool calls as templates expect them: arguments as an object; as JSON text, a template would put quotes around it."""
    if isinstance(value, str):
        value = _json(value, "tool_calls holds", "toolCallsNotReadable")
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(call, Mapping) for call in value):
        raise Unusable("toolCallsNotReadable", f"tool_calls holds {shown(value)}; expected a list of calls")
    calls = [_call(copy.deepcopy(dict(call))) for call in value]
    require_unicode(calls)
    return calls


def _call(call: dict[str, Any]) -> dict[str, Any]:
    own = call["function"] if isinstance(call.get("function"), dict) else call
    arguments = own.get("arguments")
    if isinstance(arguments, str):
        own["arguments"] = _json(arguments, "a tool call has arguments of", "toolCallsNotReadable")
    return call
