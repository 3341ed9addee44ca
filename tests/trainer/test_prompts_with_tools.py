"""Prompts that have tools: known, sampled, scored and evaluated with them; runs that began without leave them out, as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.data import DataSource, HoldOut, Prompts, PromptSource
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PromptIdentity, StageResult
from rlhf_api.words import StageName
from rlhf_operator.core.chain.references import PROMPT_IDENTITY
from rlhf_store import open_artifact, open_store
from rlhf_trainer.data.held_out import HeldOutPrompts
from rlhf_trainer.data.layouts import demonstrations_of
from rlhf_trainer.data.messages import functions_of
from rlhf_trainer.data.prompts import PromptSets, load_prompt_sets
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.quickstart.world import CHAT_TEMPLATE
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.prepared.encoding import encode_demonstrations
from support.preflights import knowing, problems, run, uri
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world
from support.vocabularies import CHATML, LLAMA3, template, tokenizer, vocabulary

WITH, WITHOUT = PromptIdentity.RENDERED_WITH_TOOLS, PromptIdentity.RENDERED
QWEN = tokenizer(CHATML, template("qwen2_5"), eos="<|im_end|>")
#: As the quickstart's, with a turn that names the tools.
WRITES_TOOLS = CHAT_TEMPLATE.replace(
    "{{ bos_token }}", "{{ bos_token }}{% for tool in tools or [] %}<|user|> {{ tool.function.name }} <|end|>{% endfor %}"
)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def write(file: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return uri(file)


def sets_of(folder: Path, rows: list[dict[str, Any]], chat: Chat, identity: PromptIdentity) -> PromptSets:
    source = PromptSource(**write(folder / "prompts.jsonl", rows), column="prompt", max_unusable_rows=0.9)
    prompts = Prompts(source=source, per_iteration=100, validation=HoldOut(size=4))
    return load_prompt_sets(prompts, 1, folder / "in", Storage(url="file:///s"), identify=identify_by(identity, chat))


ROWS = [{"prompt": f"What is {i // 2}?", **({"tools": [tool("add")]} if i % 2 else {})} for i in range(40)]


def test_with_other_tools_it_is_another_prompt_and_a_run_that_began_without_leaves_it_out(tmp_path: Path) -> None:
    chat = Chat(QWEN)
    now, before = (sets_of(tmp_path, ROWS, chat, identity) for identity in (WITH, WITHOUT))
    plain = sets_of(tmp_path, [row for row in ROWS if "tools" not in row], chat, WITH)
    assert (len(now.validation) + len(now.training[0]), now.counts["withTools"]) == (40, 20)
    assert (before.validation, before.training, before.counts["unusable"]) == (plain.validation, plain.training, 20)
    assert "withTools" not in before.counts
    assert "withTools" not in plain.counts


def test_a_template_that_leaves_the_tools_out_asks_something_else(tmp_path: Path) -> None:
    silent = Chat(tokenizer(LLAMA3, template("llama3"), bos=LLAMA3[0], eos=LLAMA3[4]))
    with pytest.raises(ConfigurationProblem, match=r"20 of 20 rows .* leaves out 'add'; set policy\.chatTemplate"):
        sets_of(tmp_path, ROWS[1::2], silent, WITH)


def test_a_template_that_leaves_a_parameter_out_asks_something_else(tmp_path: Path) -> None:
    """Names alone: whoever answers cannot know what the function takes."""
    names = Chat(tokenizer(CHATML, WRITES_TOOLS.replace("{{ bos_token }}", ""), eos="<|im_end|>"))
    rows = [{"prompt": f"What is {i}?", "tools": [tool("add", addend={"type": "number"})]} for i in range(20)]
    with pytest.raises(ConfigurationProblem, match="the chat template leaves out 'addend'; set"):
        sets_of(tmp_path, rows, names, WITH)


@pytest.mark.parametrize(("identity", "left_out"), [(WITH, 3), (WITHOUT, 2)])
def test_a_demonstration_answers_a_held_out_prompt_with_its_tools_or_without(
    tmp_path: Path, identity: PromptIdentity, left_out: int
) -> None:
    under = vocabulary(QWEN)
    sets = sets_of(tmp_path, ROWS, under.chat, identity)
    held = {prompt.tools is None: prompt.messages[0]["content"] for prompt in sets.validation}
    asked = [(held[True], None), (held[True], [tool("mul")])]
    asked += [(held[False], [tool("add")])] if identity is WITH else []
    rows = [{"prompt": text, "response": "4", **({"tools": tools} if tools else {})} for text, tools in asked]
    items, tally = demonstrations_of(DataSource(name="d", uri="file:///d"), rows, "sft.data").read(rows)
    counts: dict[str, int] = {}
    encode_demonstrations(items, tally, under, 999, counts, HeldOutPrompts(sets, identify_by(identity, under.chat)))
    assert counts["heldOut"] == left_out


def test_a_bare_function_of_a_demonstration_is_compared_with_prompts_that_have_no_tools(tmp_path: Path) -> None:
    """It stays as its row has it, in a run without tools."""
    under = vocabulary(QWEN)
    sets = sets_of(tmp_path, ROWS[::2], under.chat, WITH)
    rows = [{"prompt": sets.validation[0].messages[0]["content"], "response": "4", "tools": [{"name": "f"}]}]
    items, tally = demonstrations_of(DataSource(name="d", uri="file:///d"), rows, "sft.data").read(rows)
    counts: dict[str, int] = {}
    encode_demonstrations(items, tally, under, 999, counts, HeldOutPrompts(sets, identify_by(WITH, under.chat)))
    assert counts["heldOut"] == 1


def test_a_reward_model_scores_an_answer_with_the_tools_of_its_prompt(reward: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(reward, tmp_path / "reward")
    (folder / "chat_template.jinja").write_text(WRITES_TOOLS)
    messages = [{"role": "user", "content": "sort: moon lion"}]
    asked = [Response(messages, "lion moon", tools=tools) for tools in (None, [tool("moon")], [tool("river")], [tool("moon")])]
    none, moon, river, again = BradleyTerryLabeler.load(folder).score(asked)
    assert len({none, moon, river}) == 3
    assert moon == again


def changes(world: Path, folder: Path, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    asked = pq.read_table(world / "prompts.parquet").to_pylist()
    if rows is None:
        rows = [{**row, **({"tools": [tool("lion"), tool("moon")]} if number % 2 else {})} for number, row in enumerate(asked)]
    spec = spec_of_world(world).to_wire()
    return {
        "policy": {**spec["policy"], "chatTemplate": {"inline": WRITES_TOOLS}},
        "prompts": {**spec["prompts"], "source": write(folder / "prompts.jsonl", rows)},
        "train": {**spec["train"], "maxPromptLength": 22, "maxLength": 32},
    }


def test_a_reward_model_whose_template_leaves_tools_out_is_known_before_anything_runs(
    world: Path, reward: Path, storage: Storage, tmp_path: Path
) -> None:
    model = {"type": "BradleyTerry", "bradleyTerry": {"model": uri(reward)}}
    told = problems(world, storage, tmp_path, **changes(world, tmp_path), reward=model)
    assert f", as file://{reward} reads it to score an answer: its chat template leaves out 'lion', 'moon' of the tools" in told
    assert "Take a reward model whose template writes them" in told


def test_a_run_without_tools_is_resolved_as_it_was(world: Path, storage: Storage, tmp_path: Path) -> None:
    asked = pq.read_table(world / "prompts.parquet").to_pylist()
    found = run(world, storage, tmp_path, **changes(world, tmp_path, [{**row, "tools": []} for row in asked]))
    assert found.resolved[PROMPT_IDENTITY] == WITHOUT
    assert "promptsWithTools" not in found.counts


def test_what_tools_are_made_of_is_no_field_of_a_message(world: Path, storage: Storage, tmp_path: Path) -> None:
    assert not any("nobody reads" in warning for warning in run(world, storage, tmp_path, **changes(world, tmp_path)).warnings)


def test_a_system_prompt_of_the_mixture_that_takes_the_place_of_tools_is_refused(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    """Where a template writes tools only without a system turn, the sampler alone would leave them out."""
    given = changes(world, tmp_path)
    silent = WRITES_TOOLS.replace("in tools or []", "in (tools or [] if messages[0].role != 'system' else [])")
    given["policy"]["chatTemplate"] = {"inline": silent}
    mixture = [{"name": "told", "weight": 1, "temperature": 1.0, "systemPrompt": "moon"}]
    given["sample"] = {**spec_of_world(world).sample.to_wire(), "mixture": mixture}
    told = problems(world, storage, tmp_path, **given)
    assert "with a systemPrompt of sample.mixture before it: the chat template leaves out 'lion', 'moon' of its tools" in told


def test_transcripts_of_user_and_assistant_are_not_asked_as_one_text(world: Path, storage: Storage, tmp_path: Path) -> None:
    """As glaive-function-calling-v2 has them in its column chat."""
    asked = pq.read_table(world / "prompts.parquet").to_pylist()
    chats = [f"USER: {row['messages'][0]['content']}\n\n\nASSISTANT: moon <|endoftext|>\n\n\n" for row in asked]
    world = knowing(world, tmp_path / "world", r"USER|ASSISTANT|<\|endoftext\|>")
    given = changes(world, tmp_path, [{"chat": chat} for chat in chats])
    given["prompts"]["source"]["column"] = "chat"
    told = problems(world, storage, tmp_path, **given)
    assert f"{len(asked)} of {len(asked)} rows are transcripts of USER and ASSISTANT" in told


@pytest.fixture(scope="module")
def whole_run(world: Path, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    folder = tmp_path_factory.mktemp("tools")
    spec = spec_of_world(world, **changes(world, folder), storage={"url": f"file://{folder}/store"})
    return run_whole_chain(spec, folder / "run", fork_server)


def rows_of(run: RealRun, stage: StageName) -> list[dict[str, Any]]:
    result: StageResult = run.result(stage)
    assert result.artifact is not None
    artifact = open_artifact(open_store(run.storage), result.artifact)
    folder = artifact.fetch(run.folder / f"fetched-{stage}")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


@pytest.mark.engine
@pytest.mark.parametrize("stage", [StageName.SAMPLE, StageName.EVALUATE])
def test_the_ids_that_are_asked_are_those_of_transformers(whole_run: RealRun, tokenizer: Any, stage: StageName) -> None:
    assert whole_run.resolved[PROMPT_IDENTITY] == WITH
    assert whole_run.result(StageName.PREFLIGHT, None).counts["promptsWithTools"] == 22
    rows = rows_of(whole_run, stage)
    assert 0 < sum(row["tools"] is not None for row in rows) < len(rows)
    for row in rows:
        tools = None if row["tools"] is None else json.loads(row["tools"])
        theirs = tokenizer.apply_chat_template(
            row["messages"], tools=tools, chat_template=WRITES_TOOLS, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert row["prompt_ids"] == theirs
        assert tools in (None, [tool("lion"), tool("moon")])


@pytest.mark.engine
def test_what_is_trained_on_is_what_was_sampled(whole_run: RealRun) -> None:
    sampled = {row["prompt_id"]: row["prompt_ids"] for row in rows_of(whole_run, StageName.SAMPLE)}
    labels = rows_of(whole_run, StageName.LABEL)
    assert labels
    assert all(label["prompt_ids"] == sampled[label["prompt_id"]] for label in labels)
    assert (None, StageName.FINALIZE) in whole_run.results


CITY = {"type": "object", "properties": {"city": {"type": "string", "default": None}}}
BARE = {"name": "get_weather", "description": "The weather.", "parameters": CITY}
OPENAI = {"type": "function", "function": BARE}
ASKED = {"role": "user", "content": "Weather in Paris?"}
LISTS = "You may call functions. Here are the available tools:<tools> {} </tools>"


@pytest.mark.parametrize(
    ("held", "handed"),
    [
        pytest.param([OPENAI], [OPENAI], id="OpenAI's list"),
        pytest.param(json.dumps([OPENAI]), [OPENAI], id="JSON text (Hermes)"),
        pytest.param(json.dumps([BARE]), [OPENAI], id="bare functions (APIGen, ToolACE)"),
        pytest.param([json.dumps(BARE)], [OPENAI], id="a list of JSON texts (When2Call)"),
        pytest.param([{"type": "function", **BARE}], [OPENAI], id="flat (OpenAI's Responses)"),
        pytest.param([{"function": BARE}], [OPENAI], id="without a type"),
        pytest.param([{"name": "now"}], [{"type": "function", "function": {"name": "now"}}], id="without parameters"),
        pytest.param("[]", None, id="none"),
        pytest.param("null", None, id="null"),
    ],
)
@pytest.mark.parametrize("family", ["qwen2_5", "qwen3"])
def test_tools_as_public_sets_have_them_are_rendered_as_servers_hand_them(
    held: object, handed: list[Any] | None, family: str, tmp_path: Path
) -> None:
    found = tokenizer(CHATML, template(family), eos="<|im_end|>", plain=("<think>", "</think>"))
    chat = Chat(found)
    sets = sets_of(tmp_path, [{"prompt": f"Weather in {i}?", "tools": held} for i in range(10)], chat, WITH)
    for prompt in sets.training[0]:
        theirs = found.apply_chat_template(
            list(prompt.messages), tools=handed, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert chat.prompt(prompt.messages, prompt.tools) == theirs


@pytest.mark.parametrize(
    ("row", "words"),
    [
        pytest.param(
            {"tools": json.dumps([{"name": "f", "parameters": {"limit": {"type": "int", "default": 10}}}])},
            "parameters of function f are {'limit': {'type': 'int', 'default': 10}}, which is no JSON schema of an object; write",
            id="parameters by name (xLAM)",
        ),
        pytest.param(
            {"prompt": [{"role": "system", "content": LISTS.format(json.dumps([OPENAI]))}, ASKED], "tools": json.dumps([OPENAI])},
            "its system turn lists the functions that are in the column tools, too",
            id="told twice (Hermes)",
        ),
        pytest.param({"tools": [{"name": "f", "input_schema": CITY}]}, "has its parameters in input_schema; write", id="Anthropic"),
        pytest.param({"tools": [{"type": "web_search"}]}, "{'type': 'web_search'}, which is no function; write", id="built in"),
        pytest.param({"tools": json.dumps(BARE)}, "expected a list of JSON schemas", id="one alone"),
        pytest.param({"tools": f"{json.dumps(BARE)}\n{json.dumps(BARE)}"}, "which is no JSON", id="several texts in one (glaive)"),
        pytest.param({"tools": ["get_weather"]}, "'get_weather', which is no JSON", id="names"),
        pytest.param({"tools": '[{"name": "\\ud800"}]'}, "holds half of a character", id="half a character"),
        pytest.param(
            {"tools": [{"name": "f", "parameters": {"type": "object", "properties": [["city", {"type": "string"}]]}}]},
            "which is no JSON schema of an object",
            id="an Arrow map",
        ),
    ],
)
def test_tools_that_no_template_is_made_for_are_refused_in_words(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem) as raised:
        sets_of(tmp_path, [{"prompt": [ASKED], **row}], Chat(QWEN), WITH)
    assert words in str(raised.value)


def test_functions_that_stand_in_the_system_turn_alone_are_asked_as_they_stand(tmp_path: Path) -> None:
    """As ToolACE and the conversations of glaive have them."""
    chat = Chat(QWEN)
    system = {"role": "system", "content": f"Here is a list of functions in JSON format that you can invoke:\n{json.dumps([BARE])}"}
    rows = [{"prompt": [system, {**ASKED, "content": f"Weather in {i}?"}]} for i in range(10)]
    for prompt in sets_of(tmp_path, rows, chat, WITH).training[0]:
        theirs = QWEN.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=True, return_dict=False)
        assert chat.prompt(prompt.messages, prompt.tools) == theirs


def test_a_system_turn_may_name_a_function(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Call get_weather where somebody asks for the weather."}
    rows = [{"prompt": [system, {**ASKED, "content": f"Weather in {i}?"}], "tools": [BARE]} for i in range(10)]
    assert sets_of(tmp_path, rows, Chat(QWEN), WITH).counts["withTools"] == 10


def test_what_json_cannot_hold_is_refused_and_not_found_by_the_sampler() -> None:
    with pytest.raises(Exception, match="tools holds what JSON cannot"):
        functions_of([{"name": "f", "description": b"bytes"}])


def test_nulls_within_tools_are_kept_in_json_text_and_told_of_where_a_struct_loses_them(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    """A struct of Parquet gives every function the parameters of all others, with null."""
    own = [tool("lion", lion={"type": "string", "default": None}), tool("moon", moon={"type": "string", "default": None})]
    asked = pq.read_table(world / "prompts.parquet").to_pylist()
    told, kept = {}, {}
    for name, tools in (("struct", own), ("text", json.dumps(own))):
        folder = tmp_path / name
        folder.mkdir()
        rows = [{**row, "tools": [tools[i % 2]] if name == "struct" else json.dumps([own[i % 2]])} for i, row in enumerate(asked)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "prompts.parquet")
        given = changes(world, folder)
        given["prompts"]["source"] = uri(folder / "prompts.parquet")
        told[name] = [warning for warning in run(world, storage, folder, **given).warnings if "null" in warning]
        source = PromptSource(**uri(folder / "prompts.parquet"))
        prompts = Prompts(source=source, per_iteration=100, validation=HoldOut(size=4))
        kept[name] = load_prompt_sets(prompts, 1, folder, storage, identify=identify_by(WITH, Chat(QWEN))).training[0][0].tools
    assert told["text"] == []
    [warning] = told["struct"]
    assert f"fields of null in the tools of {len(asked)} rows are taken for absent" in warning
    assert "write the column tools as JSON text" in warning
    assert kept["text"] in ([own[0]], [own[1]])
    assert kept["struct"] in ([tool("lion", lion={"type": "string"})], [tool("moon", moon={"type": "string"})])


@pytest.mark.parametrize("question", ["Weather in Paris?", "Weather in the city of Paris, in a city?"])
def test_a_parameter_is_not_written_because_somebody_says_its_name(question: str) -> None:
    chat = Chat(tokenizer(LLAMA3, WRITES_TOOLS.replace("<|user|>", "").replace("<|end|>", ""), eos="<|eot_id|>"))
    assert chat.tools_left_out([{"role": "user", "content": question}], [tool("weather", city={"type": "string"})]) == ["city"]
