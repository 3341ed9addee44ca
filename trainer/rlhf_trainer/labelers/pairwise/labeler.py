"""Pairwise preference: a language model that says which of two responses is better, asked in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.messages import Message
from rlhf_trainer.forward.logps import device_of, score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.labelers.base import Response, ScoreNotFinite, askable, by_prompt, ignore_progress, share_of_others
from rlhf_trainer.models.loading import load_causal_lm
from rlhf_trainer.models.pair_format import answer_ids, asked_ids, question
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Pairs that share batches, where no prompt holds them together.
_WINDOW = 32


class PairwiseLabeler:
    """P(first is better) = sigmoid(logit of A - logit of B) at the place of the answer, the mean of both orders.

    Packed without padding: a comparison depends on its own two responses alone, but for rounding. That depends on what shares a
    batch, so the comparisons of a prompt share theirs with no others when they are scored.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self._model = model
        self._chat = vocabulary.chat
        self._bos: int | None = vocabulary.tokenizer.bos_token_id
        self._answers = answer_ids(vocabulary.tokenizer)

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> PairwiseLabeler:
        """Raises ConfigurationProblem."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=trust_remote_code)
        return cls(load_causal_lm(folder, dtype, trust_remote_code=trust_remote_code).to(device), vocabulary)

    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        """The share of the other responses to its prompt than which each is better: the mean of P over them. ½ where it is alone.

        n responses take n (n - 1) passes, of two responses each.
        """
        scores: dict[int, float] = {}
        for group, own in by_prompt(responses):
            texts = list(dict.fromkeys(response.text for response in own))
            first = {response.text: response for response in reversed(own)}
            pairs = list(combinations(texts, 2))
            better = dict(zip(pairs, self._compare([(first[a], first[b]) for a, b in pairs]), strict=True))
            times = Counter(response.text for response in own)
            share = {text: share_of_others(better, text, times) for text in texts}
            scores |= {index: share[response.text] for index, response in zip(group, own, strict=True)}
            on_progress(len(scores))
        return [scores[index] for index in range(len(responses))]

    def compare(
        self, pairs: Sequence[tuple[Response, Response]], on_progress: Callable[[int], None] = ignore_progress
    ) -> list[float]:
        """P(first is better) of each; ½ exactly for equal responses."""
        found: list[float] = []
        for begin in range(0, len(pairs), _WINDOW):
            window = pairs[begin : begin + _WINDOW]
            differ = [(a, b) for a, b in window if a.text != b.text]
            compared = iter(self._compare(differ))
            found += [0.5 if a.text == b.text else next(compared) for a, b in window]
            on_progress(len(found))
        return found

    def _compare(self, pairs: Sequence[tuple[Response, Response]]) -> list[float]:
        """Of responses that differ; they share their batches."""
        if not pairs:
            return []
        examples = [self._example(*order) for a, b in pairs for order in ((a, b), (b, a))]
        longest = max(example.longest for example in examples)
        self._require_positions(longest, pairs)
        found = []
        for pair, leads in zip(pairs, self._leads(examples), strict=True):
            if not bool(leads.isfinite().all()):
                raise ScoreNotFinite(
                    f"The pairwise preference model's answer is {leads.tolist()} for {pair[0].shown} against {pair[1].shown}. Its "
                    "weights overflow on this text, or are damaged. Name another model, or the same in another dtype."
                )
            found.append(float(leads.sigmoid().mean()))
        return found

    def asked_ids(self, messages: Sequence[Message], first: str, second: str) -> list[int]:
        """What it reads when it is asked about two responses."""
        return asked_ids(self._chat, question(messages, None, first, second), self._bos)

    @property
    def answers(self) -> tuple[int, int]:
        """Ids of A and B."""
        return self._answers

    def scores_of(self, examples: Iterable[Example]) -> Iterator[list[float]]:
        """Of pairs that are asked already, two examples each, of which the first has the chosen response first: log P that the
        chosen one is better and log P that the rejected one is, so that sigma of their difference is P itself.

        Raises ScoreNotFinite.
        """
        number = 0
        each = iter(examples)
        while part := [self._question(example) for example in islice(each, 2 * _WINDOW)]:
            for leads in self._leads(part):
                number += 1
                if not bool(leads.isfinite().all()):
                    raise ScoreNotFinite(
                        f"The pairwise preference model's answers to pair {number} of those that it is measured by are "
                        f"{leads.tolist()}. Its weights overflow on this text, or are damaged. Train it with a smaller learning "
                        "rate."
                    )
                yield [float(leads.sigmoid().mean().log()), float((-leads).sigmoid().mean().log())]

    def _question(self, example: Example) -> Example:
        """With both answers, whichever it was trained on."""
        return Example(example.prompt, [[answer] for answer in self._answers])

    def _leads(self, examples: Sequence[Example]) -> Iterator[Tensor]:
        """Of each pair, whose two orders stand side by side: by how much the first's logit leads, in both of them [2], in nats."""
        leads: dict[int, float] = {}
        packing = Packing.choose(max(example.tokens for example in examples), device_of(self._model))
        for scored in score_examples(self._model, examples, packing):
            for place, example in enumerate(scored.examples):
                leads[id(example)] = scored.logps[2 * place] - scored.logps[2 * place + 1]
        for forth, back in zip(examples[::2], examples[1::2], strict=True):
            yield torch.tensor([leads[id(forth)], -leads[id(back)]], dtype=torch.float64)

    def _example(self, first: Response, second: Response) -> Example:
        with askable(first, "Name a Bradley-Terry model, or leave these prompts out."):
            asked = question(first.messages, first.tools, first.text, second.text)
            return self._question(Example(asked_ids(self._chat, asked, self._bos), []))

    def _require_positions(self, longest: int, pairs: Sequence[tuple[Response, Response]]) -> None:
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(positions, int) and longest > positions:
            raise ConfigurationProblem(
                f"A prompt with two responses has {longest} tokens, and the pairwise preference model {positions} positions (near "
                f"{pairs[0][0].shown}). Lower sample.maxNewTokens, or name another model."
            )
