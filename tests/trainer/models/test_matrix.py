"""Templates of real families against the layouts of real data: the ids are transformers' own, or there is a sentence.

What each family gets is in docs/models.md; UPDATE_GOLDEN=1 writes its table again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.data import DataSource, PromptSource
from rlhf_api.stage import PromptIdentity
from rlhf_trainer.data.layouts import demonstrations_of, preferences_of, questions_of
from rlhf_trainer.data.rows import Unusable
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.models.templates import DATE, NAMED_TEMPLATES
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.prepared.encoding import Comparison, encode_demonstrations, encode_preferences
from rlhf_trainer.training.prepared.recipe import whole
from support.conversations import sides
from support.vocabularies import LLAMA3, template, templates, tokenizer

DOCUMENT = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"

THINK = ("<think>", "</think>")
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
COHERE = tuple(f"<|{name}_TOKEN|>" for name in ("START_OF_TURN", "END_OF_TURN", "SYSTEM", "USER", "CHATBOT"))
COHERE2 = ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
#: Theirs have a bar and a blank of their own.
DEEPSEEK = tuple(
    f"<\uff5c{name}\uff5c>" for name in ("begin\u2581of\u2581sentence", "end\u2581of\u2581sentence", "User", "Assistant")
)
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
GEMMA_4 = ("turn", "tool", "tool_call", "channel")
GEMMA4 = ("<eos>", "<bos>", *(f"<|{name}>" for name in GEMMA_4), *(f"<{name}|>" for name in GEMMA_4))
GLM = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
HARMONY = ("<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>")
MUSE = ("<|begin_of_text|>", "<|start|>", "<|message|>", "<|eot|>", "<|eom|>")
PHI = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
VISION = ("<|begin_of_text|>", "<|im_start|>", "<end_of_utterance>", "<image>")


@dataclass(frozen=True)
class Family:
    """chat: the template; stops: as its generation_config.json has them."""

    name: str
    chat: str
    controls: Sequence[str]
    stops: Sequence[str]
    bos: str | None = None
    plain: Sequence[str] = ()


def shipped(name: str, controls: Sequence[str], *stops: str, bos: str | None = None, plain: Sequence[str] = ()) -> Family:
    return Family(name, template(name), controls, stops, bos, plain)


LIQUID = ("<|startoftext|>", *CHATML)

PUBLISHED = [
    shipped("cohere", ("<BOS_TOKEN>", *COHERE), "<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>"),
    shipped("cohere2", ("<BOS_TOKEN>", *COHERE, *COHERE2), "<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>"),
    shipped("deepseek_r1_distill", DEEPSEEK, DEEPSEEK[1], bos=DEEPSEEK[0], plain=THINK),
    shipped("deepseekv3", DEEPSEEK, DEEPSEEK[1], bos=DEEPSEEK[0], plain=THINK),
    shipped("diffusion_gemma", GEMMA4, "<eos>", "<turn|>", bos="<bos>"),
    shipped("gemma", GEMMA, "<eos>", "<end_of_turn>", bos="<bos>"),
    shipped("gemma3", GEMMA, "<eos>", "<end_of_turn>", bos="<bos>"),
    shipped("gemma4", GEMMA4, "<eos>", "<turn|>", bos="<bos>"),
    *(shipped(f"gemma4_v{number}", GEMMA4, "<eos>", "<turn|>", bos="<bos>") for number in (2, 3, 4, 5)),
    shipped("glm4moe", GLM, "<|endoftext|>", "<|user|>", "<|observation|>", plain=THINK),
    shipped("gptoss", HARMONY, "<|return|>", "<|call|>"),
    shipped("idefics3", VISION, "<end_of_utterance>", bos="<|begin_of_text|>"),
    *(shipped(name, LIQUID, "<|im_end|>", bos="<|startoftext|>") for name in ("lfm2", "lfm2_v2")),
    *(shipped(f"lfm2_2_5{more}", LIQUID, "<|im_end|>", bos="<|startoftext|>", plain=THINK) for more in ("", "_v2", "_vl")),
    shipped("llama3", LLAMA3, "<|end_of_text|>", "<|eot_id|>", bos="<|begin_of_text|>"),
    shipped("llama3_1", (*LLAMA3, "<|eom_id|>", "<|python_tag|>"), "<|eom_id|>", "<|eot_id|>", bos="<|begin_of_text|>"),
    shipped("llama3_2", (*LLAMA3, "<|eom_id|>", "<|python_tag|>"), "<|eom_id|>", "<|eot_id|>", bos="<|begin_of_text|>"),
    shipped("llava_next", ("<unk>", "<s>", "</s>", "<image>"), "</s>", bos="<s>"),
    shipped("muse_glimmer", MUSE, "<|eot|>", bos="<|begin_of_text|>"),
    *(shipped(f"nemotron_3_{name}", CHATML, "<|im_end|>", plain=THINK) for name in ("5_lightning", "nano", "super", "ultra")),
    shipped("phi3", PHI, "<|endoftext|>", "<|end|>", bos="<s>"),
    shipped("phi3_5", PHI, "<|endoftext|>", "<|end|>", bos="<s>"),
    shipped("qwen2_5", CHATML, "<|endoftext|>", "<|im_end|>"),
    shipped("qwen2_5_vl", CHATML, "<|endoftext|>", "<|im_end|>"),
    shipped("qwen3", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("qwen3_instruct_2507", CHATML, "<|endoftext|>", "<|im_end|>"),
    shipped("qwen3_5_think", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("qwen3_5_nothink", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("qwen3_6", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("qwen3_8", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("qwen3_vl", CHATML, "<|endoftext|>", "<|im_end|>", plain=THINK),
    shipped("smolvlm", VISION, "<end_of_utterance>", bos="<|im_start|>"),
    Family("Llama3 (by name)", NAMED_TEMPLATES["Llama3"], LLAMA3, ("<|eot_id|>",), LLAMA3[0]),
    Family("ChatML (by name)", NAMED_TEMPLATES["ChatML"], CHATML, ("<|im_end|>",)),
]  # fmt: skip
#: The variants that trl trains with; they mark what is the assistant's.
TRAINING = {
    family: replace(family, name=f"{family.name}_training", chat=template(f"{family.name}_training"))
    for family in PUBLISHED
    if f"{family.name}_training" in templates()
}
FAMILIES = [*PUBLISHED, *TRAINING.values()]

USES = ("prompt", "sft", "preference", "reward")
Turns = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Layout:
    """turns: the conversation that it means, with the answer; row: how a data set holds a list of turns."""

    name: str
    turns: Turns
    row: Callable[[Turns], dict[str, Any]]
    tools: list[Any] | None = None
    pair: Callable[[Turns, Turns], dict[str, Any]] | None = None


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def sharegpt(turns: Turns) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in turns]}


def transcript(turns: Turns) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    text = "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns)
    return text if turns[-1]["role"] == "assistant" else f"{text}\n\nAssistant:"


def columns(prompt: str, response: str) -> Callable[[Turns], dict[str, Any]]:
    def row(turns: Turns) -> dict[str, Any]:
        return {prompt: turns[0]["content"]} | ({response: turns[1]["content"]} if len(turns) > 1 else {})

    return row


def instruction(turns: Turns) -> dict[str, Any]:
    asked, _, more = turns[0]["content"].partition("\n\n")
    return {"instruction": asked, "input": more} | ({"output": turns[1]["content"]} if len(turns) > 1 else {})


def in_parts(turns: Turns) -> dict[str, Any]:
    return {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]}


def system_column(turns: Turns) -> dict[str, Any]:
    return {"system": turns[0]["content"], "conversations": turns[1:]}


ASKED = [user("What is the capital of France?"), assistant("Paris is the capital.")]
LONGER = [user("Hello!"), assistant("Hi."), user("What is 2 + 3?"), assistant("5")]
SYSTEM = [{"role": "system", "content": "Be short."}, *ASKED]
REASONED = [user("What is 2 + 3?"), assistant("5", reasoning_content="Two and three are five.")]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]  # fmt: skip
TOLD = [user("Weather in Paris?"), assistant("I cannot tell.")]
CALLED = [
    user("Weather in Paris?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "get_weather", "content": "18 C"},
    assistant("It is 18 C."),
]

LAYOUTS = [
    Layout("messages", ASKED, lambda turns: {"messages": turns}),
    Layout("several turns", LONGER, lambda turns: {"messages": turns}),
    Layout("ShareGPT", LONGER, sharegpt),
    Layout("JSON text", ASKED, lambda turns: {"messages": json.dumps(turns)}),
    Layout("content parts", ASKED, in_parts),
    Layout("transcript", LONGER, lambda turns: {"messages": transcript(turns)},
           pair=lambda one, other: {"chosen": transcript(one), "rejected": transcript(other)}),
    Layout("prompt, response", ASKED, columns("prompt", "response"),
           pair=lambda one, other: {"prompt": one[0]["content"], "chosen": one[-1]["content"], "rejected": other[-1]["content"]}),
    Layout("instruction, input", [user("Translate.\n\nBonjour"), assistant("Hello")], instruction,
           pair=lambda one, other: {"prompt": one[0]["content"], "responses": [other[-1]["content"], one[-1]["content"]],
                                    "rewards": [0.0, 1.0]}),
    Layout("system turn", SYSTEM, lambda turns: {"messages": turns}),
    Layout("system column", SYSTEM, system_column),
    Layout("reasoning", REASONED, lambda turns: {"messages": turns}),
    Layout("tools", TOLD, lambda turns: {"messages": turns, "tools": TOOLS}, tools=TOOLS),
    Layout("tool calls", CALLED, lambda turns: {"messages": turns, "tools": TOOLS}, tools=TOOLS),
]  # fmt: skip


@cache
def under(family: Family) -> Vocabulary:
    found = tokenizer(family.controls, family.chat, bos=family.bos, eos=family.stops[0], plain=family.plain)
    return Vocabulary(found, frozenset(found.convert_tokens_to_ids(list(family.stops))), Chat(found))


def theirs(vocabulary: Vocabulary, turns: Turns, tools: list[Any] | None, *, ask: bool = False) -> list[int]:
    """transformers' own ids of a conversation, on the day of ours."""
    options: dict[str, Any] = {"tools": tools, "add_generation_prompt": ask, "strftime_now": DATE.strftime}
    handed = handed_over(vocabulary, turns)
    return list(vocabulary.tokenizer.apply_chat_template(handed, tokenize=True, return_dict=False, **options))


def marked(vocabulary: Vocabulary, turns: Turns, tools: list[Any] | None) -> list[bool]:
    """Which of them are the assistant's, as transformers reads the template's marks; all, where it has none."""
    if not vocabulary.chat.template.marks_answers:
        return [True] * len(theirs(vocabulary, turns, tools))
    options: dict[str, Any] = {"tools": tools, "return_assistant_tokens_mask": True, "strftime_now": DATE.strftime}
    handed = handed_over(vocabulary, turns)
    found = vocabulary.tokenizer.apply_chat_template(handed, tokenize=True, return_dict=True, **options)
    return [bool(flag) for flag in found["assistant_masks"]]


def handed_over(vocabulary: Vocabulary, turns: Turns) -> Turns:
    parts = vocabulary.chat.template.in_parts
    handed = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} if parts else turn for turn in turns]
    # Families call it by one name or the other.
    return [turn | ({"thinking": turn["reasoning_content"]} if "reasoning_content" in turn else {}) for turn in handed]


def counted_by_hand(vocabulary: Vocabulary, ids: list[int], first: int, turn: dict[str, Any]) -> int:
    """The token behind the first stop behind what the turn says."""
    for place in range(first + 1, len(ids) + 1):
        said = turn["content"] in vocabulary.tokenizer.decode(ids[first:place]) and bool(turn["content"])
        if ids[place - 1] in vocabulary.stop_ids and (said or "tool_calls" in turn):
            return place
    return len(ids)


def sft_by_hand(vocabulary: Vocabulary, layout: Layout) -> list[tuple[list[int], list[bool]]]:
    answers = [i for i, turn in enumerate(layout.turns) if turn["role"] == "assistant"]
    heads = [theirs(vocabulary, layout.turns[:i], layout.tools, ask=True) for i in answers]
    whole = [theirs(vocabulary, layout.turns[: i + 1], layout.tools) for i in answers]
    spans = [
        (len(head), counted_by_hand(vocabulary, ids, len(head), layout.turns[i]))
        for head, ids, i in zip(heads, whole, answers, strict=True)
    ]
    marks = [marked(vocabulary, layout.turns[: i + 1], layout.tools) for i in answers]
    if all(whole[-1][: len(part)] == part for part in (*heads, *whole)):
        return [(whole[-1], [mark and any(a <= i < b for a, b in spans) for i, mark in enumerate(marks[-1])])]
    each = zip(whole, marks, spans, strict=True)
    return [(ids, [mark and a <= i < b for i, mark in enumerate(own)]) for ids, own, (a, b) in each]


@cache
def outcome(family: Family, layout: Layout, use: str) -> str:
    """ "right", or the refusal. Fails where the ids are others."""
    vocabulary = under(family)
    try:
        found = ours(vocabulary, layout, use)
    except (ConfigurationProblem, Unusable) as refusal:
        return str(refusal)
    assert found == by_hand(vocabulary, layout, use), f"{family.name}, {layout.name}, {use}"
    return "right"


def ours(vocabulary: Vocabulary, layout: Layout, use: str) -> Any:
    source = DataSource(name="d", uri="file:///d.jsonl")
    if use == "prompt":
        asked = [layout.row(layout.turns[:-1])]
        items, tally = questions_of(PromptSource(uri=source.uri), asked, "prompts.source").read(asked)
        tally.require_usable()
        # It cannot be asked where its tools are left out.
        identify_by(PromptIdentity.RENDERED_WITH_TOOLS, vocabulary.chat)(items[0].messages, items[0].tools)
        return vocabulary.chat.prompt(items[0].messages, items[0].tools)
    if use == "sft":
        said = [layout.row(layout.turns)]
        rows, tally = demonstrations_of(source, said, "sft.data").read(said)
        counts: dict[str, int] = {}
        examples = encode_demonstrations(rows, tally, vocabulary, 4096, counts)
        tally.require_usable()
        if lost := [name for name in counts if name.startswith("notRendered/") and name != "notRendered/name"]:
            raise ConfigurationProblem(f"It is counted that the template leaves something out: {', '.join(lost)}.")
        return [(list(example.completions[0]), list((example.counted or [[]])[0])) for example in examples]
    other = [*layout.turns[:-1], assistant("No.")]
    if use == "preference":
        compared = [pair_row(layout, other)]
        pairs, tally = preferences_of(source, compared, "reward.bradleyTerry.train.data").read(compared)
        counts = {}
        examples = encode_preferences(pairs, tally, vocabulary, Comparison(whole(4096)), counts)
        tally.require_usable()
        if lost := [name for name in counts if name.startswith("notRendered/") and name != "notRendered/name"]:
            raise ConfigurationProblem(f"It is counted that the template leaves something out: {', '.join(lost)}.")
        return [[*example.prompt, *completion] for example in examples for completion in example.completions]
    if layout.tools and (lost := vocabulary.chat.tools_left_out(layout.turns, layout.tools)):
        raise ConfigurationProblem(f"The chat template leaves out {', '.join(lost)} of the tools.")
    prompt, answer = sides(vocabulary.chat, layout.turns, layout.tools)
    return prompt + answer


def by_hand(vocabulary: Vocabulary, layout: Layout, use: str) -> Any:
    if use == "prompt":
        return theirs(vocabulary, layout.turns[:-1], layout.tools, ask=True)
    if use == "sft":
        return sft_by_hand(vocabulary, layout)
    if use == "preference":
        return [theirs(vocabulary, [*layout.turns[:-1], last], layout.tools) for last in (layout.turns[-1], assistant("No."))]
    return theirs(vocabulary, layout.turns, layout.tools)


def pair_row(layout: Layout, other: Turns) -> dict[str, Any]:
    if layout.pair is not None:
        return layout.pair(layout.turns, other)
    one, two = layout.row(layout.turns), layout.row(other)
    conversation = next(name for name in ("messages", "conversations") if name in one)
    return {**one, "chosen": one[conversation], "rejected": two[conversation]}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_ids_are_the_makers_or_there_is_a_sentence(family: Family, layout: Layout) -> None:
    for use in USES:
        outcome(family, layout, use)


def test_every_template_that_trl_ships_is_tried() -> None:
    assert templates() <= {family.name for family in FAMILIES}


def test_what_the_loss_counts_without_marks_is_what_it_counts_with_them() -> None:
    """Where both templates write the same, the marks of one say whether the answers of the other were found rightly."""
    compared = 0
    for family, training in TRAINING.items():
        for layout in LAYOUTS:
            if "right" == outcome(family, layout, "sft") == outcome(training, layout, "sft"):
                plain, by_marks = (ours(under(one), layout, "sft") for one in (family, training))
                if [ids for ids, _ in plain] == [ids for ids, _ in by_marks]:
                    assert plain == by_marks, f"{family.name}, {layout.name}"
                    compared += 1
    assert compared > 150


def table() -> str:
    lines = [f"| family | {' | '.join(layout.name for layout in LAYOUTS)} |", "| --- |" + " --- |" * len(LAYOUTS)]
    for family in PUBLISHED:
        own, training = cells(family), cells(TRAINING[family]) if family in TRAINING else None
        lines.append(f"| {family.name}{', _training' if training == own else ''} | {own} |")
        if training not in (None, own):
            lines.append(f"| {family.name}_training | {training} |")
    return "\n".join(lines) + "\n"


def cells(family: Family) -> str:
    found = []
    for layout in LAYOUTS:
        refused = [use for use in USES if outcome(family, layout, use) != "right"]
        found.append("right" if not refused else "refused" if len(refused) == len(USES) else f"not {', '.join(refused)}")
    return " | ".join(found)


def test_the_table_in_the_documents_is_what_comes_out() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    told, _, after = rest.partition(END)
    if os.environ.get("UPDATE_GOLDEN"):
        told = table()
        DOCUMENT.write_text(f"{before}{BEGIN}{told}{END}{after}", encoding="utf-8")
    assert told == table()


def test_four_cells_of_five_are_right() -> None:
    found = [outcome(family, layout, use) == "right" for family in FAMILIES for layout in LAYOUTS for use in USES]
    assert len(found) == 3848
    assert sum(found) >= 0.8 * len(found)
