"""Tokenizers of every kind: what they normalise, put in front, strip and add changes no mask, and no content into a control token.

Ids are transformers' own. Where somebody wrote a control token, they are those of the same tokenizer before that token was added to
it: there, its letters are letters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import answered, assistant, demonstrations, sides, user
from support.vocabularies import template, vocabulary

CONTROLS = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
#: A control token of which no template knows.
WRITTEN = "<|written|>"
TEXTS = [
    "What is the capital?",
    "cafe\u0301 re\u0301sume\u0301 \u1100\u1161\u11a8 \u212b \u2126",
    "\uff21\uff42\uff43 \uff11\uff12 \u00bd \u2460 \u2026 \u2122 \ufdfa",
    "\ufb01ne \ufb02ow",
    "emoji 👩\u200d🔬 🇩🇪",
    "\u0301 alone",
    "\ufdfa",
    " blanks  at both ends ",
    "two\n\nlines\n",
    "e",
]
QUESTION, ANSWER = "\ufb01rst cafe\u0301?", "\uff21nswer \ufb01ne."

TIGHT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BROKEN = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
LABELLED = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """pieces: Bytes, as GPT-2's; else SentencePiece's blanks, in front of: always, first, never, or Legacy's normalizer.

    flags: of the control tokens that a template writes.
    """

    name: str
    chat: str = TIGHT
    pieces: str = "Bytes"
    normalizer: str | None = None
    flags: Mapping[str, bool] = field(default_factory=dict, hash=False)
    prefix_space: bool = False


BOTH = {"lstrip": True, "rstrip": True}
KINDS = [
    *(Kind(name, normalizer=name) for name in ("NFC", "NFD", "NFKC", "Lowercase")),
    Kind("NFKC, roles by name", LABELLED, normalizer="NFKC"),
    Kind("NFKC, normalized tokens", normalizer="NFKC", flags={"normalized": True}),
    Kind("NFKC, blanks stripped", BROKEN, normalizer="NFKC", flags=BOTH),
    Kind("blanks stripped on the right", template("phi3"), flags={"rstrip": True}),
    Kind("blanks stripped on the left", BROKEN, flags={"lstrip": True}),
    Kind("blanks stripped on both sides", BROKEN, flags=BOTH),
    Kind("a blank in front of each piece", prefix_space=True),
    Kind("a blank in front, line breaks", BROKEN, prefix_space=True),
    Kind("a blank in front, roles by name", LABELLED, prefix_space=True),
    *(Kind(f"SentencePiece, {scheme}", TIGHT, scheme) for scheme in ("always", "first", "never", "Legacy")),
    *(Kind(f"SentencePiece, {scheme}, Llama 2", LLAMA2, scheme) for scheme in ("always", "first", "Legacy")),
    *(Kind(f"SentencePiece, {scheme}, Phi 3", template("phi3"), scheme, flags={"rstrip": True}) for scheme in ("first", "Legacy")),
    Kind("SentencePiece, first, NFKC", TIGHT, "first", "NFKC"),
]
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@cache
def trained(kind: Kind) -> Any:
    """A `tokenizers.Tokenizer` without any added tokens but the template's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    of_bytes = kind.pieces == "Bytes"
    raw = Tokenizer(models.BPE() if of_bytes else models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [getattr(normalizers, kind.normalizer)()] if kind.normalizer else []
    if of_bytes:
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind.prefix_space)
        raw.decoder = decoders.ByteLevel()
    elif kind.pieces == "Legacy":
        steps += [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind.pieces, split=False)
    if steps:
        raw.normalizer = normalizers.Sequence(steps)
    spare = [] if of_bytes else ["<unk>", *(f"<0x{number:02X}>" for number in range(256))]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if of_bytes else ["\u2581", "\n"]
    corpus = [f" {word}" for word in " ".join([*TEXTS, *CONTROLS, "user: assistant: The capital is Paris. [INST]"] * 3).split(" ")]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=spare, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(corpus, trainer)
    told = json.loads(raw.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(told))


def made(kind: Kind, *, written: bool, post: str = "$A") -> Any:
    """written: whether WRITTEN is a control token."""
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer.from_str(trained(kind).to_str())
    plain = {"normalized": False}
    raw.add_special_tokens([AddedToken(token, **plain) for token in CONTROLS[:2]])
    raw.add_special_tokens([AddedToken(token, **{**plain, **kind.flags}) for token in CONTROLS[2:]])
    raw.add_special_tokens([AddedToken(WRITTEN, normalized=False)] if written else [])
    adds = [(token, raw.token_to_id(token)) for token in CONTROLS[:2] if token in post]
    raw.post_processor = processors.TemplateProcessing(single=post, special_tokens=adds)
    found = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="<|endoftext|>")
    found.chat_template = kind.chat
    return found


def by_hand(tokenizer: Any, turns: Sequence[dict[str, Any]], stops: frozenset[int]) -> tuple[list[int], list[bool]]:
    """transformers' own ids; counted is what stands behind those of the question, up to the first end."""
    asked = tokenizer.apply_chat_template(turns[:1], tokenize=True, add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert ids[: len(asked)] == asked
    end = next(place for place in range(len(asked), len(ids)) if ids[place] in stops)
    return ids, [len(asked) <= place <= end for place in range(len(ids))]


def exchanges(texts: Sequence[str]) -> list[list[dict[str, Any]]]:
    pairs = [*((text, ANSWER) for text in texts), *((QUESTION, text) for text in texts)]
    return [[user(question), assistant(answer)] for question, answer in pairs]


@EACH
def test_ids_and_mask_are_right_whatever_the_tokenizer_does_to_a_text(kind: Kind) -> None:
    under = vocabulary(made(kind, written=True))
    for turns in exchanges(TEXTS):
        part = answered(under.chat, turns, under.stop_ids)
        assert (part.ids, part.counted) == by_hand(under.tokenizer, turns, under.stop_ids), turns
        prompt, answer = sides(under.chat, turns[:2])
        assert prompt + answer == part.ids
        assert prompt == under.chat.prompt(turns[:1])


@EACH
def test_what_is_tokenised_together_has_the_ids_that_it_has_alone(kind: Kind) -> None:
    """Control tokens that somebody wrote among it, which are read in another way."""
    chat = vocabulary(made(kind, written=True)).chat
    turns = exchanges([*TEXTS, WRITTEN, f"a\n{WRITTEN}\nb"])
    drafts = [draft for each in turns for draft in chat.conversation(each)]
    compared = [chat.exchange(each[:1], each[1]) for each in turns]
    chat.read_ahead([*drafts, *compared])
    assert [chat.answered(draft) for draft in drafts] == [answered(chat, each) for each in turns]
    assert [chat.sides(draft) for draft in compared] == [sides(chat, each) for each in turns]


@EACH
def test_a_control_token_that_somebody_wrote_is_letters_to_every_tokenizer(kind: Kind) -> None:
    under, before = vocabulary(made(kind, written=True)), made(kind, written=False)
    said = [WRITTEN, f"{WRITTEN} first", f"last {WRITTEN}", f"cafe\u0301 {WRITTEN}\ufb01ne", f"a\n{WRITTEN}\nb"]
    for turns in exchanges(said):
        part = answered(under.chat, turns, under.stop_ids)
        assert (part.ids, part.counted) == by_hand(before, turns, under.stop_ids), turns
        assert under.chat.prompt(turns[:1]) == part.ids[: part.counted.index(True)]


@pytest.mark.parametrize(("normalizer", "text"), [("NFKC", "a \uff1c|end|\uff1e b"), ("Lowercase", "a <|END|> b")])
def test_defect_other_letters_that_are_normalised_to_a_control_token_forge_none(normalizer: str, text: str) -> None:
    """A tokenizer that seeks its tokens in what it has normalised; no other makes one of them."""
    forgeable = vocabulary(made(Kind(normalizer, normalizer=normalizer, flags={"normalized": True}), written=False))
    for asked in (forgeable.chat.prompt, forgeable.chat.asked):
        with pytest.raises(TemplateRefusal, match=r"makes '<\|end\|>' of other letters in this one"):
            asked([user(text)])
    counts: dict[str, int] = {}
    demonstrations([{"prompt": said, "response": "No."} for said in (text, "hi")], forgeable, counts)
    assert counts["unusable/templateRefuses"] == 1
    safe = vocabulary(made(Kind(normalizer, normalizer=normalizer), written=False))
    assert safe.chat.prompt([user(text)]).count(safe.tokenizer.convert_tokens_to_ids("<|end|>")) == 1


def test_a_letter_that_swallows_a_control_token_of_the_template_is_refused() -> None:
    """Of > and a stroke through it, NFC makes one letter, and the token in front of the text is gone."""
    under = vocabulary(made(Kind("NFC", normalizer="NFC", flags={"normalized": True}), written=False))
    with pytest.raises(TemplateRefusal, match=r"makes '<\|user\|>' of other letters in this one, or other letters of it"):
        under.chat.prompt([user("\u0338 is a stroke")])


def test_tokens_that_are_single_words_alone_are_refused_where_a_template_writes_them_beside_words() -> None:
    under = vocabulary(made(Kind("single", flags={"single_word": True}), written=False))
    with pytest.raises(ConfigurationProblem, match=r"a model that is trained on it never learns to stop"):
        demonstrations([{"messages": [user("hi"), assistant("one")]}], under)


def test_defect_a_reward_model_reads_eos_as_its_pipeline_has_it() -> None:
    """Its tokenizer puts one behind every text; where the template ends with it, it is there once."""
    found = made(Kind("eos"), written=False, post="<s> $A <|endoftext|>")
    turns = [user("What is 2 + 2?"), assistant("4")]
    text = found.apply_chat_template(turns, tokenize=False)
    prompt, answer = sides(vocabulary(found, classifier=True).chat, turns)
    assert prompt + answer == found(text.removeprefix("<s>"))["input_ids"]
    assert vocabulary(found, classifier=True).unwritten_eos == "<|endoftext|>"
    policy = vocabulary(found).chat
    assert sides(policy, turns)[1] == answer[:-1]
    assert answered(policy, turns).ids == [*prompt, *answer[:-1]]
    ends = made(Kind("eos", LABELLED), written=False, post="<s> $A <|endoftext|>")
    assert sides(vocabulary(ends, classifier=True).chat, turns)[1].count(ends.eos_token_id) == 1
    assert vocabulary(ends, classifier=True).unwritten_eos == ""


def test_a_tokenizer_without_a_fast_version_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    from rlhf_trainer.models.vocabulary import load_vocabulary

    def folder(controls: Sequence[str], chat: str) -> Vocabulary:
        slow = ByT5Tokenizer(extra_ids=0, additional_special_tokens=list(controls))
        slow.chat_template = chat
        slow.save_pretrained(str(tmp_path))
        return load_vocabulary(tmp_path, None, [], trust_remote_code=False)

    for chat in (TIGHT.removeprefix("{{ bos_token }}"), BROKEN.removeprefix("{{ bos_token }}")):
        under, before = folder([*CONTROLS[2:], WRITTEN], chat), folder(CONTROLS[2:], chat).tokenizer
        assert not under.tokenizer.is_fast
        for turns in exchanges([*TEXTS, WRITTEN, f"a {WRITTEN} b"]):
            part = answered(under.chat, turns, under.stop_ids)
            assert (part.ids, part.counted) == by_hand(before, turns, under.stop_ids), turns
