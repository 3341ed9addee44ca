"""A reward model that gives each response a score at its last token: packed, rendered ahead, told by name where it is no number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example
from rlhf_trainer.data.messages import Message
from rlhf_trainer.forward.attention import require_known_attention
from rlhf_trainer.forward.logps import device_of
from rlhf_trainer.forward.rows import Batch, Packing, build_batch, micro_batches
from rlhf_trainer.models.chat import Chat, Draft

from .base import Response, ScoreNotFinite, askable, by_prompt, ignore_progress

#: Prompts whose responses are rendered before their turn.
_AHEAD = 16
_INSTEAD = "Name another reward model, or one whose tokenizer has its markers as special tokens."

Key = tuple[tuple[int, ...], tuple[int, ...]]


class ScoringLabeler(ABC):
    """Packed without padding, so a score depends on its own response alone, but for rounding.

    That depends on what shares a batch. So a prompt's responses share theirs with no others: a shard has whole prompts, and the
    scores of a prompt are the same to the last bit however many shards there are, on machines of a kind.
    """

    def __init__(self, model: Any, chat: Chat) -> None:
        self._model = model
        self._chat = chat

    @abstractmethod
    def _scores(self, batch: Batch) -> Tensor:
        """Scores [C] of the completions of `batch`, which is not yet on the model's device."""

    def _example(self, prompt: list[int], answer: list[int]) -> Example:
        """Raises TemplateRefusal for ids that the model cannot score."""
        return Example(prompt, [answer])

    @torch.no_grad()
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        scores: dict[int, float] = {}
        for group, asked in _ahead(self._render, by_prompt(responses)):
            first: dict[int, Response] = {}
            for index, example in zip(group, asked, strict=True):
                first.setdefault(id(example), responses[index])
            examples = list({id(example): example for example in asked}.values())
            require_known_attention(self._model, max(example.longest for example in examples))
            packing = Packing.choose(max(example.tokens for example in examples), device_of(self._model))
            own: dict[int, float] = {}
            for rows in micro_batches(examples, packing):
                own |= self._finite(rows, first)
            scores |= {index: own[id(example)] for index, example in zip(group, asked, strict=True)}
            on_progress(len(scores))
        return [scores[index] for index in range(len(responses))]

    def _render(self, responses: Sequence[Response]) -> list[Example]:
        """One for each. Equal responses are one, so that they are scored once, and tie to the last bit."""
        drafts: list[Draft] = []
        for response in responses:
            with askable(response, _INSTEAD):
                answer: Message = {"role": "assistant", "content": response.text}
                drafts.append(self._chat.exchange(response.messages, answer, response.tools))
        self._chat.read_ahead(drafts)
        found: dict[Key, Example] = {}
        asked: list[Example] = []
        for response, draft in zip(responses, drafts, strict=True):
            with askable(response, _INSTEAD):
                prompt, ids = self._chat.sides(draft)
                asked.append(found.setdefault((tuple(prompt), tuple(ids)), self._example(prompt, ids)))
        return asked

    def _finite(self, rows: list[list[Example]], responses: Mapping[int, Response]) -> dict[int, float]:
        """By identity of the example. Raises ScoreNotFinite, and names the response.

        A mask keeps neighbours of a row apart by a weight of 0, and 0 times NaN is NaN: so of a row with one, each is scored alone.
        """
        scores = self._rewards(rows)
        if all(map(math.isfinite, scores.values())):
            return scores
        for example in [example for row in rows for example in row]:
            score = self._rewards([[example]])[id(example)]
            if not math.isfinite(score):
                raise ScoreNotFinite(
                    f"The reward model's score is {score} for {responses[id(example)].shown}. Its weights overflow on this text, "
                    "or are damaged. Score it with the model's own code, and name another model, or the same in another dtype."
                )
            scores[id(example)] = score
        return scores

    def _rewards(self, rows: list[list[Example]]) -> dict[int, float]:
        batch = build_batch(rows)
        rewards = self._scores(batch).tolist()
        return {id(example): reward for example, reward in zip(batch.examples, rewards, strict=True)}


def _ahead(
    render: Callable[[Sequence[Response]], list[Example]], groups: Iterable[tuple[list[int], list[Response]]]
) -> Iterator[tuple[list[int], list[Example]]]:
    """Rendered beside the GPU, some groups before their turn: a thread is enough, for whoever waits for a GPU holds no lock."""
    with ThreadPoolExecutor(1, thread_name_prefix="render") as pool:
        waiting: deque[tuple[list[int], Future[list[Example]]]] = deque()
        try:
            for group, responses in groups:
                waiting.append((group, pool.submit(render, responses)))
                if len(waiting) > _AHEAD:
                    ready, rendered = waiting.popleft()
                    yield ready, rendered.result()
            while waiting:
                ready, rendered = waiting.popleft()
                yield ready, rendered.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
