"""Messages to ids, once: BOS, what the loss counts, where a response ends."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.model import ChatTemplate, ChatTemplateName
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.ends import stop_token_ids, turn_closing_id
from rlhf_trainer.models.templates import NAMED_TEMPLATES
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.quickstart.world import CHAT_TEMPLATE
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import answered, sides

TURNS = [
    {"role": "user", "content": "sort : lemon apple"},
    {"role": "assistant", "content": "apple lemon"},
    {"role": "user", "content": "reverse : moon river"},
    {"role": "assistant", "content": "river moon"},
]


def with_template(tokenizer: Any, template: str) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def counted_of(tokenizer: Any, turns: list[dict[str, Any]], end: int) -> tuple[list[int], list[bool]]:
    found = answered(Chat(tokenizer), turns, frozenset({end}))
    return found.ids, found.counted


@pytest.fixture(scope="module")
def llama3() -> Any:
    """A tokenizer with the special tokens of Llama 3, bytes for the rest."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    bytes_only = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *sorted(alphabet)])}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        bos_token=special[0],
        eos_token=special[1],
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = NAMED_TEMPLATES["Llama3"]
    return tokenizer


def test_defect_bos_is_written_once(tokenizer: Any, llama3: Any) -> None:
    for candidate in (tokenizer, llama3):
        ids = Chat(candidate).prompt(TURNS[:1])
        assert ids.count(candidate.bos_token_id) == 1
        assert ids[0] == candidate.bos_token_id


def test_defect_double_bos_is_refused(tokenizer: Any) -> None:
    twice = with_template(tokenizer, "{{ bos_token }}" + CHAT_TEMPLATE)
    with pytest.raises(ConfigurationProblem, match="BOS"):
        Chat(twice).prompt(TURNS[:1])


def test_a_bos_in_every_turn_is_the_templates_own_business(tokenizer: Any) -> None:
    """Llama 2 and Mistral write one in front of each exchange."""
    each = with_template(
        tokenizer,
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token }}{% endif %}<|{{ message['role'] }}|> "
        "{{ message['content'] }} <|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )
    assert Chat(each).prompt(TURNS[:3]).count(tokenizer.bos_token_id) == 2


def test_the_loss_counts_what_the_assistant_says_in_every_turn_and_its_end(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    ids, counted = counted_of(tokenizer, TURNS, end)
    said = tokenizer.convert_ids_to_tokens([token for token, counts in zip(ids, counted, strict=True) if counts])
    assert said == ["apple", "lemon", "<|end|>", "river", "moon", "<|end|>"]
    assert ids == tokenizer.apply_chat_template(TURNS, tokenize=True, return_dict=False)


def test_what_stands_behind_the_end_of_a_turn_is_not_counted(llama3: Any) -> None:
    newline = with_template(llama3, NAMED_TEMPLATES["Llama3"].replace("<|eot_id|>", "<|eot_id|>\n"))
    end = llama3.convert_tokens_to_ids("<|eot_id|>")
    ids, counted = counted_of(newline, TURNS[:2], end)
    last = max(i for i, counts in enumerate(counted) if counts)
    assert ids[last] == end
    assert len(ids) == last + 2


def test_a_question_behind_the_last_answer_is_left_out(tokenizer: Any) -> None:
    assert answered(Chat(tokenizer), TURNS[:3]) == answered(Chat(tokenizer), TURNS[:2])


def test_a_template_that_is_no_prefix_code_is_refused(llama3: Any) -> None:
    """Some templates drop the reasoning of earlier turns: the tokens of a turn then change with what follows."""
    unstable = with_template(llama3, "{{ bos_token }}{{ messages | length }}" + CHAT_TEMPLATE.removeprefix("{{ bos_token }}"))
    with pytest.raises(ConfigurationProblem, match="does not continue its own prompt"):
        Chat(unstable).conversation(TURNS)


def test_a_template_that_cannot_render_a_role_says_what_to_do(tokenizer: Any) -> None:
    strict = with_template(tokenizer, "{{ raise_exception('no system role here') }}")
    with pytest.raises(ConfigurationProblem, match=r"no system role here.*policy\.chatTemplate"):
        Chat(strict).prompt(TURNS[:1])


def test_defect_several_eos_ids_all_end_a_response(llama3: Any) -> None:
    """Base Llama 3 ends with <|end_of_text|>, its chat turns with <|eot_id|>: a sample that ends with either has ended."""
    base, turn = (llama3.convert_tokens_to_ids(token) for token in ("<|end_of_text|>", "<|eot_id|>"))
    assert stop_token_ids(llama3, None, []) == sorted([base, turn])
    assert stop_token_ids(llama3, [base, 200], []) == sorted([base, turn, 200])
    assert stop_token_ids(llama3, 201, []) == sorted([base, turn, 201])


def test_declared_stop_ids_are_taken_as_they_are(llama3: Any) -> None:
    assert stop_token_ids(llama3, [1], [4, 1, 4]) == [1, 4]
    with pytest.raises(ConfigurationProblem, match="beyond the tokenizer's"):
        stop_token_ids(llama3, None, [4, 128009])


def test_a_token_in_front_of_the_answer_does_not_end_it(llama3: Any) -> None:
    """Templates of reasoning models open a block before the answer, with a special token of its own."""
    header = "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>"
    thinking = with_template(llama3, header + "{{ message['content'] }}<|eot_id|>\n{% endfor %}")
    assert turn_closing_id(thinking) == llama3.convert_tokens_to_ids("<|eot_id|>")


def test_a_template_that_closes_no_turn_has_no_closing_id(tokenizer: Any) -> None:
    plain = with_template(tokenizer, "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}")
    assert turn_closing_id(plain) is None


def test_a_reward_model_reads_prompt_and_response_as_its_template_writes_them(tokenizer: Any) -> None:
    prompt, answer = sides(Chat(tokenizer), [TURNS[0], {"role": "assistant", "content": "apple lemon"}])
    assert prompt + answer == tokenizer.apply_chat_template(TURNS[:2], tokenize=True, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(answer) == ["apple", "lemon", "<|end|>"]


def test_a_named_template_replaces_the_tokenizers_own(world: Path, tokenizer: Any) -> None:
    own = load_vocabulary(world / "model", None, [], trust_remote_code=False)
    named = load_vocabulary(world / "model", ChatTemplate(name=ChatTemplateName.CHAT_ML), [], trust_remote_code=False)
    assert named.tokenizer.chat_template == NAMED_TEMPLATES["ChatML"]
    assert own.template_hash != named.template_hash


def test_of_several_templates_of_a_model_the_default_is_used(world: Path, tmp_path: Path, tokenizer: Any) -> None:
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": CHAT_TEMPLATE, "tool_use": "tools"}
    several.save_pretrained(str(tmp_path))
    assert load_vocabulary(tmp_path, None, [], trust_remote_code=False).tokenizer.chat_template == CHAT_TEMPLATE


def test_a_model_without_chat_template_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    base = copy.deepcopy(tokenizer)
    base.chat_template = None
    base.save_pretrained(str(tmp_path))
    with pytest.raises(ConfigurationProblem, match="no chat template"):
        load_vocabulary(tmp_path, None, [], trust_remote_code=False)
