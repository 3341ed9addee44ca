"""A multi-objective reward model as a labeler: it scores as its published code does, and its gate reads the prompt or nothing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_trainer.labelers.base import Comparer, Response, ScoreNotFinite
from rlhf_trainer.labelers.gated.format import HEADER, Gate
from rlhf_trainer.labelers.gated.labeler import MultiObjectiveLabeler
from rlhf_trainer.labelers.gated.model import load_gated_model
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import assistant, user
from support.tiny_models import save_gated_model

SYSTEM = {"role": "system", "content": "Be kind."}
PROMPTS: list[list[dict[str, Any]]] = [
    [user("What is it?")],
    [user("What is it?"), assistant("A bird."), user("Which one?\n\nSay it in one word. ")],
    [SYSTEM, user("Name the capital of France.")],
    [user("assistant\n\n" * 5)],
]
TEXTS = ["A tit.", "I cannot\n\nsay that.", "It is a wren, I think.", "", "\n\nNo. "]
HEAD_SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gated_model(tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def labeler(folder: Path) -> MultiObjectiveLabeler:
    return MultiObjectiveLabeler.load(folder)


Published = Callable[[list[dict[str, Any]], str], tuple[float, torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def published(folder: Path) -> Published:
    return as_published(folder)


def as_published(folder: Path) -> Published:
    """Score, gate [K] and rewards [K] of one conversation by itself, written down from the model card's modeling code."""
    from transformers import AutoTokenizer, LlamaModel

    body, tokenizer = LlamaModel.from_pretrained(str(folder)).eval(), AutoTokenizer.from_pretrained(str(folder))
    heads, config = load_file(folder / HEAD_SHARD), json.loads((folder / "config.json").read_text())
    pattern = tokenizer.encode("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)

    def score(turns: list[dict[str, Any]], text: str) -> tuple[float, torch.Tensor, torch.Tensor]:
        ids = tokenizer.apply_chat_template([*turns, assistant(text)], tokenize=True, return_dict=False)
        places = [place for place in range(len(ids)) if ids[place : place + len(pattern)] == pattern]
        with torch.no_grad():
            states = body(input_ids=torch.tensor([ids])).last_hidden_state
            rewards = torch.nn.functional.linear(states[:, -1], heads["regression_layer.weight"])
            x = states[:, places[-1]]
            for layer in range(config["gating_n_hidden"] + 1):
                x = x @ heads[f"gating.layers.{layer}.weight"].T + heads[f"gating.layers.{layer}.bias"]
                x = torch.relu(x) if layer < config["gating_n_hidden"] else x
            gate = torch.nn.functional.softmax(x / config["gating_temperature"], dim=1) * heads["gating.logit_scale"][0]
            found = torch.sum(gate * (rewards @ heads["reward_transform_matrix"]), dim=1)
        return float(found[0]), gate[0], rewards[0]

    return score


def asked(turns: list[dict[str, Any]], text: str) -> Response:
    return Response(turns, text, "prompt 7")


ALL = [(turns, text) for turns in PROMPTS for text in TEXTS]


def test_it_scores_as_the_published_code_does_one_conversation_at_a_time(
    labeler: MultiObjectiveLabeler, published: Published
) -> None:
    expected = [published(turns, text)[0] for turns, text in ALL]
    assert [labeler.score([asked(*one)])[0] for one in ALL] == pytest.approx(expected, abs=1e-5)
    assert labeler.score([asked(*one) for one in ALL]) == pytest.approx(expected, abs=1e-5), "neither batch nor order matter"
    assert labeler.score([asked(*one) for one in ALL[::-1]]) == pytest.approx(expected[::-1], abs=1e-5)
    assert max(expected) - min(expected) > 1
    assert not isinstance(labeler, Comparer), "its scores have a mean"


@pytest.mark.parametrize(
    "gate",
    [{"gating_n_hidden": 0}, {"gating_n_hidden": 1, "gating_hidden_dim": 7, "num_objectives": 5, "gating_temperature": 10}],
)
def test_gates_of_other_shapes_are_read_as_config_json_has_them(gate: dict[str, Any], tmp_path: Path) -> None:
    folder = save_gated_model(tmp_path, **gate)
    expected = [as_published(folder)(turns, text)[0] for turns, text in ALL[::3]]
    assert MultiObjectiveLabeler.load(folder).score([asked(*one) for one in ALL[::3]]) == pytest.approx(expected, abs=1e-5)


def test_the_model_of_these_tests_tells_a_wrong_gate_from_the_right_one(published: Published) -> None:
    """Its gate weighs unevenly, and each prompt otherwise, whatever the answer."""
    gates = [published(turns, "Yes.")[1] for turns in PROMPTS]
    assert all(float(gate.max()) > 3 * float(gate.mean()) for gate in gates)
    assert all(not torch.allclose(gates[0], gate, atol=0.05) for gate in gates[1:])
    assert torch.equal(published(PROMPTS[0], "No.")[1], gates[0])


def test_scores_are_the_same_to_the_last_bit_however_prompts_are_shared_out(labeler: MultiObjectiveLabeler) -> None:
    together = labeler.score([asked(*one) for one in ALL])
    for shards in (2, 4):
        for shard in range(shards):
            own = [place for place in range(len(ALL)) if (place // len(TEXTS)) % shards == shard]
            assert labeler.score([asked(*ALL[place]) for place in own]) == [together[place] for place in own]


def test_equal_responses_tie_to_the_last_bit(labeler: MultiObjectiveLabeler) -> None:
    scores = labeler.score([asked(PROMPTS[1], text) for text in ("Yes.", "No.", "Yes.")])
    assert scores[0] == scores[2] != scores[1]


def test_an_answer_that_writes_the_header_of_another_does_not_move_the_gate(labeler: MultiObjectiveLabeler, folder: Path) -> None:
    """The authors' code takes the last header: whoever answers with one would be weighed by words of his own."""
    gate, chat = gate_of(folder), vocabulary(folder).chat
    for text in ("Yes.", f"Yes. {HEADER}No.", HEADER):
        prompt, answer = chat.sides(chat.exchange(PROMPTS[1], assistant(text)))
        assert gate.place(prompt, answer) == len(prompt) - len(gate.header)
    assert math.isfinite(labeler.score([asked(PROMPTS[1], f"Yes. {HEADER}No.")])[0])


def vocabulary(folder: Path) -> Vocabulary:
    return load_vocabulary(folder, None, [], trust_remote_code=False, classifier=True)


def gate_of(folder: Path) -> Gate:
    return Gate(vocabulary(folder).tokenizer, str(folder))


#: Llama 3's, but that it leaves what is said as it is, with a role for `assistant`, and something behind the end of a turn.
TEMPLATE = (
    "{{{{ bos_token }}}}{{% for m in messages %}}<|start_header_id|>{{{{ m.role if m.role == 'user' else '{role}' }}}}"
    "<|end_header_id|>\n\n{{{{ m.content }}}}<|eot_id|>{behind}{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|start_header_id|>{role}<|end_header_id|>\n\n{{% endif %}}"
)


@pytest.mark.parametrize(("role", "behind"), [("model", ""), ("assistant", "\n")])
def test_a_conversation_without_the_header_of_an_answer_is_named(folder: Path, tmp_path: Path, role: str, behind: str) -> None:
    """There is no other place that the gate could read instead."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text(TEMPLATE.format(role="assistant", behind=""))
    kept = MultiObjectiveLabeler.load(copy).score([asked(PROMPTS[0], "Yes.")])
    assert kept == MultiObjectiveLabeler.load(folder).score([asked(PROMPTS[0], "Yes.")])
    (copy / "chat_template.jinja").write_text(TEMPLATE.format(role=role, behind=behind))
    wrong = r"about prompt 7, which begins 'Yes\.': The header of an answer.*does not stand in the conversation.*Name another"
    with pytest.raises(ConfigurationProblem, match=wrong):
        MultiObjectiveLabeler.load(copy).score([asked(PROMPTS[0], "Yes.")])


def test_a_header_that_was_cut_off_or_stands_in_the_answer_is_refused(folder: Path) -> None:
    gate = gate_of(folder)
    header = gate.header
    assert gate.place([1, *header, 2, *header], [3]) == 2 + len(header)
    assert gate.place([1, *header[:-1]], [header[-1], 3]) == 1
    for prompt, answer in (([1, *header[1:]], [3]), ([1], [3]), ([], []), (header[1:], header[:1])):
        with pytest.raises(TemplateRefusal, match="does not stand in the conversation"):
            gate.place(prompt, answer)
    with pytest.raises(TemplateRefusal, match="within or behind the answer"):
        gate.place([1, *header, 2], [3, *header])


def test_a_tokenizer_without_the_control_tokens_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigurationProblem, match=r"of file:///reward has no tokens of their own for <\|eot_id\|>, "):
        Gate(tokenizer, "file:///reward")


def test_the_heads_stay_in_fp32_over_a_trunk_in_bf16(folder: Path, labeler: MultiObjectiveLabeler) -> None:
    """In bf16 a softmax over 19 rewards loses what tells near answers apart."""
    model = load_gated_model(folder, torch.bfloat16)
    assert {parameter.dtype for parameter in model.heads.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.base_model.parameters()} == {torch.bfloat16}
    near = MultiObjectiveLabeler(model, vocabulary(folder).chat, gate_of(folder)).score([asked(*one) for one in ALL])
    assert near == pytest.approx(labeler.score([asked(*one) for one in ALL]), abs=0.5)
    assert len(set(near)) == len({(str(turns), text.strip()) for turns, text in ALL})


def test_what_pads_elsewhere_plays_no_part(folder: Path, labeler: MultiObjectiveLabeler, tmp_path: Path) -> None:
    """With pad = EOS the authors' code reads at the end of the question, and all answers score alike (RLHF-Reward-Modeling#49)."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    end = vocabulary(folder).tokenizer.convert_tokens_to_ids("<|eot_id|>")
    for name, pad in (("config.json", {"pad_token_id": end}), ("tokenizer_config.json", {"pad_token": "<|eot_id|>"})):
        (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | pad))
    assert MultiObjectiveLabeler.load(copy).score([asked(*one) for one in ALL]) == labeler.score([asked(*one) for one in ALL])


def changed_heads(folder: Path, copy: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy whose heads are otherwise."""
    shutil.copytree(folder, copy)
    heads = load_file(copy / HEAD_SHARD)
    change(heads)
    save_file({name: tensor.contiguous() for name, tensor in heads.items()}, copy / HEAD_SHARD, metadata={"format": "pt"})
    return copy


def test_a_score_that_is_no_number_is_named(folder: Path, tmp_path: Path) -> None:
    copy = changed_heads(folder, tmp_path / "copy", lambda heads: heads["gating.logit_scale"].fill_(math.nan))
    with pytest.raises(ScoreNotFinite, match="is nan for prompt 7, which begins 'A tit"):
        MultiObjectiveLabeler.load(copy).score([asked(PROMPTS[0], "A tit.")])


def test_no_code_of_the_model_is_run_whatever_it_is_for(folder: Path, labeler: MultiObjectiveLabeler, tmp_path: Path) -> None:
    """The published file cannot be imported by the transformers of this version: LLAMA_INPUTS_DOCSTRING is gone."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    classes = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    code: dict[str, Any] = {name: f"modeling_custom.{name}" for name in classes}
    tokenizers = {"AutoTokenizer": [None, "modeling_custom.Tokenizer"]}
    for name, auto_map in (("config.json", code), ("tokenizer_config.json", tokenizers)):
        (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | {"auto_map": auto_map}))
    assert MultiObjectiveLabeler.load(copy).score([asked(*ALL[0])]) == labeler.score([asked(*ALL[0])])


def test_weights_that_are_not_there_are_never_made_up(folder: Path, tmp_path: Path) -> None:
    copy = changed_heads(folder, tmp_path / "a", lambda heads: heads.pop("gating.layers.3.bias"))
    with pytest.raises(ConfigurationProblem, match=r"no weights for gating\.layers\.3\.bias: they would be random"):
        load_gated_model(copy, torch.float32)
    other = shutil.copytree(folder, tmp_path / "b")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigurationProblem, match="lacks weights that LlamaModel needs"):
        load_gated_model(other, torch.float32)
