"""A pairwise preference model as a labeler: it is asked as its authors ask it, in both orders, and its answers are shares."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_trainer.data.examples import Example
from rlhf_trainer.labelers.base import Comparer, Labeler, Response, ScoreNotFinite
from rlhf_trainer.labelers.pairwise.labeler import PairwiseLabeler
from rlhf_trainer.models.pair_format import answer_ids, question
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.conversations import assistant, user
from support.tiny_models import load, save_preference_model

#: With which RLHFlow renders a prompt into the question.
PLAIN = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
TURNS = [user("What is it?"), assistant("A bird."), user("Which one?\n\nSay it in one word. ")]
TEXTS = ["A tit.", "I cannot\n\nsay that.", "It is a wren, I think.", "No."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preference_model(tmp_path_factory.mktemp("preferences"))


@pytest.fixture(scope="module")
def labeler(folder: Path) -> PairwiseLabeler:
    return PairwiseLabeler.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """P that the first of two texts is better, as the authors' code has it: text by transformers, one forward an order."""
    from transformers import AutoTokenizer

    model, own, plain = load(folder), AutoTokenizer.from_pretrained(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    a, b = (own.encode(answer, add_special_tokens=False)[0] for answer in ("A", "B"))

    def better(turns: list[dict[str, str]], texts: tuple[str, str]) -> float:
        context = plain.apply_chat_template(turns, chat_template=PLAIN, tokenize=False)
        found = []
        for first in (0, 1):
            asked = f"[CONTEXT] {context} [RESPONSE A] {texts[first]} [RESPONSE B] {texts[1 - first]} \n"
            text = own.apply_chat_template([user(asked)], add_generation_prompt=True, tokenize=False).replace(own.bos_token, "")
            with torch.no_grad():
                logits = model(torch.tensor([own.encode(text, add_special_tokens=False)])).logits[0, -1]
            chances = np.exp([float(logits[a]), float(logits[b])])
            found.append(float(chances[first] / chances.sum()))
        return sum(found) / 2

    return better


def asked(text: str, turns: list[dict[str, Any]] | None = None) -> Response:
    return Response(TURNS if turns is None else turns, text, "prompt 7")


def test_it_says_what_the_authors_code_says(labeler: PairwiseLabeler, theirs: Any) -> None:
    pairs = list(permutations(TEXTS, 2))
    found = labeler.compare([(asked(a), asked(b)) for a, b in pairs])
    assert found == pytest.approx([theirs(TURNS, pair) for pair in pairs], abs=1e-5)
    assert max(found) - min(found) > 0.05, "a model without an opinion shows nothing"
    assert isinstance(labeler, Comparer)


def test_both_orders_count_alike_and_equal_responses_tie(labeler: PairwiseLabeler) -> None:
    forth, back, equal = labeler.compare([(asked("a"), asked("b")), (asked("b"), asked("a")), (asked("a"), asked("a"))])
    assert forth + back == pytest.approx(1.0, abs=1e-6)
    assert equal == 0.5


def test_a_score_is_the_share_of_the_others_that_a_response_beats(labeler: PairwiseLabeler, theirs: Any) -> None:
    other = [user("Another question?")]
    texts = [*TEXTS, TEXTS[0]]
    scores = labeler.score([*(asked(text) for text in texts), asked("Alone.", other)])
    beaten = [
        [0.5 if a == b else theirs(TURNS, (a, b)) for place, b in enumerate(texts) if place != own] for own, a in enumerate(texts)
    ]
    assert scores[:-1] == pytest.approx([sum(each) / len(each) for each in beaten], abs=1e-5)
    assert scores[0] == scores[4], "to the last bit"
    assert scores[-1] == 0.5
    assert sum(scores[:-1]) == pytest.approx(len(texts) / 2, abs=1e-6)


def test_scores_depend_on_no_other_prompt(labeler: PairwiseLabeler) -> None:
    whole = [asked(text, turns) for turns in ([user("One?")], [user("Two?")], [user("Three?")]) for text in TEXTS]
    together = labeler.score(whole)
    assert [score for begin in range(0, 12, 4) for score in labeler.score(whole[begin : begin + 4])] == together


@pytest.mark.parametrize(
    ("turns", "tools", "what"),
    [([{"role": "system", "content": "Be kind."}, *TURNS], None, "a turn of the system"), (TURNS, [{"type": "function"}], "tools")],
)
def test_what_the_format_has_no_place_for_is_refused(
    labeler: PairwiseLabeler, turns: list[dict[str, Any]], tools: Any, what: str
) -> None:
    with pytest.raises(TemplateRefusal, match=f"no place for {what}"):
        question(turns, tools, "a", "b")
    with pytest.raises(ConfigurationProblem, match=r"prompt 7, which begins 'a': .*no place for"):
        labeler.score([Response(turns, text, "prompt 7", tools) for text in "ab"])


def test_control_tokens_of_a_response_stay_text(labeler: PairwiseLabeler, folder: Path) -> None:
    """Whoever answers `<|eot_id|>…` would say the judge's part."""
    from rlhf_trainer.models.vocabulary import load_vocabulary

    chat = load_vocabulary(folder, None, [], trust_remote_code=False).chat
    end = chat.prompt([user("x")])[-1]
    ids = chat.prompt([question(TURNS, None, "a <|eot_id|> b", "c")])
    assert ids.count(end) == chat.prompt([question(TURNS, None, "a b", "c")]).count(end)
    assert 0 < labeler.compare([(asked("a <|eot_id|> b"), asked("c"))])[0] < 1


def test_a_comparison_that_is_longer_than_the_model_reads_is_named(labeler: PairwiseLabeler) -> None:
    with pytest.raises(ConfigurationProblem, match=r"has \d+ tokens, and the pairwise preference model 512 positions"):
        labeler.compare([(asked("word " * 400), asked("b"))])


def test_an_answer_that_is_no_number_is_named(folder: Path, tmp_path: Path) -> None:
    found: Labeler = PairwiseLabeler.load(folder)
    with torch.no_grad():
        found._model.lm_head.weight.fill_(torch.nan)  # type: ignore[attr-defined]
    with pytest.raises(ScoreNotFinite, match=r"for prompt 7, which begins 'a' against prompt 7, which begins 'b'"):
        found.score([asked("a"), asked("b")])


def test_a_tokenizer_without_tokens_for_the_answers_is_refused(tokenizer: Any) -> None:
    """The quickstart's knows a few words; to it A and B are one unknown."""
    with pytest.raises(ConfigurationProblem, match="no tokens of their own for A and B"):
        answer_ids(tokenizer)


def test_pairs_that_are_asked_already_have_the_scores_of_their_responses(labeler: PairwiseLabeler) -> None:
    """As the pairs are that a trained model is measured by: both orders side by side, with whichever answer."""
    pairs = list(permutations(TEXTS, 2))
    better = labeler.compare([(asked(a), asked(b)) for a, b in pairs])
    examples = [
        Example(labeler.asked_ids(TURNS, *order), [[labeler.answers[number]]])
        for pair in pairs
        for number, order in enumerate((pair, pair[::-1]))
    ]
    for expected, (won, lost) in zip(better, labeler.scores_of(examples), strict=True):
        assert np.exp(won) == pytest.approx(expected, abs=1e-6)
        assert np.exp(won) + np.exp(lost) == pytest.approx(1.0, abs=1e-9)
        assert 1 / (1 + np.exp(lost - won)) == pytest.approx(expected, abs=1e-6)
    [tie] = labeler.scores_of([Example(labeler.asked_ids(TURNS, "a", "a"), [[answer]]) for answer in labeler.answers])
    assert tie[0] == tie[1], "to the last bit: a tie counts one half"
