"""A chat model that says which of two responses is better: asked in both orders, read strictly."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from rlhf_api.resource.labeler import JudgeEndpoint, LlmJudge
from rlhf_trainer.labelers.base import Response, by_prompt, ignore_progress, share_of_others
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.narrow import present

from .asking import ANSWER_TOKENS, Answer, Asked, ChatModel
from .endpoint import Endpoint, Patience
from .own_model import OwnModel
from .question import REHEARSED, question, template_of, verdict

Pair = tuple[Response, Response]
#: Characters of an answer that an error quotes.
_QUOTED = 300
#: Words of the counts, by what became of an answer.
REQUESTS, ANSWERS = "judgeRequests", "judgeAnswers"
NO_VERDICT, CUT, REFUSED = "judgeAnswersWithoutVerdict", "judgeAnswersCut", "judgeRefusals"
_FAILURES = (NO_VERDICT, CUT, REFUSED)


class JudgeLabeler:
    """The mean of both orders: 1 or 0 where they agree, ½ where they do not, or where the judge says that neither is better.

    An answer without a verdict is ½ for its order, and counted. Whoever asks the same twice gets the same answer, and pays once.
    """

    def __init__(self, model: ChatModel, spec: LlmJudge) -> None:
        self._model = model
        self._template = template_of(spec.prompt)
        self._bound = spec.max_parse_failures
        self._known: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._first_failure = ""

    @classmethod
    def load(
        cls, spec: LlmJudge, endpoint: JudgeEndpoint | None, seed: int, shards: int = 1, patience: Patience | None = None
    ) -> JudgeLabeler:
        """endpoint: with what of it is in no work; absent: the defaults. Each of the shards has its part of the budget.

        Raises ConfigurationProblem.
        """
        found = endpoint or present(spec.endpoint, "the judge's endpoint")
        if found.max_requests is not None:
            found = found.model_copy(update={"max_requests": found.max_requests // shards})
        return cls(Endpoint(found, seed, patience or Patience()), spec)

    @property
    def counts(self) -> dict[str, int]:
        """Of requests, answers, and those without a verdict, by reason."""
        return {**self._counts, REQUESTS: self._model.requests}

    def rehearse(self) -> None:
        """Of a model that the stage reads, and that nobody could ask before: whether it can be had, and answers with a verdict.

        Raises ConfigurationProblem.
        """
        if not isinstance(self._model, OwnModel):
            return
        asked = Asked(question(self._template, *REHEARSED), "a pair of our own", "rehearsal")
        (answer,) = self._model.ask([asked])
        if answer.cut or verdict(answer.text) is None:
            text = answer.text if len(answer.text) <= _QUOTED else f"{answer.text[:_QUOTED]}…"
            why = "was cut" if answer.cut else "has no verdict"
            raise ConfigurationProblem(
                f"What the judge {self._model.name} answers about two harmless responses {why}: {text!r}. It must end with [[A]], "
                f"[[B]] or [[C]], within {ANSWER_TOKENS} tokens: name a model that follows instructions, or correct judge.prompt.",
                reason="JudgeUnreadable",
            )

    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        """The share of the other responses to its prompt that each beats. ½ where it is alone.

        n responses that differ take n (n - 1) requests.
        """
        groups = by_prompt(responses)
        pairs = [pair for _, own in groups for pair in combinations({response.text: response for response in own}.values(), 2)]
        total = max(1, 2 * len(pairs))
        self._ask(pairs, lambda done: on_progress(done * len(responses) // total))
        scores: dict[int, float] = {}
        for group, own in groups:
            times = Counter(response.text for response in own)
            first = {response.text: response for response in own}
            better = {(a, b): self._better(first[a], first[b]) for a, b in combinations(times, 2)}
            scores |= {place: share_of_others(better, response.text, times) for place, response in zip(group, own, strict=True)}
        on_progress(len(responses))
        return [scores[place] for place in range(len(responses))]

    def compare(self, pairs: Sequence[Pair], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        """1 where the first is better, 0 where the second is; ½ exactly for equal responses, which nobody is asked about."""
        differ = [(a, b) for a, b in pairs if a.text != b.text]
        total = max(1, 2 * len(differ))
        self._ask(differ, lambda done: on_progress(done * len(pairs) // total))
        on_progress(len(pairs))
        return [0.5 if a.text == b.text else self._better(a, b) for a, b in pairs]

    def _better(self, a: Response, b: Response) -> float:
        return (self._known[_place(a, b)] + 1 - self._known[_place(b, a)]) / 2

    def _ask(self, pairs: Sequence[Pair], on_asked: Callable[[int], None]) -> None:
        """Both orders of each, but for what is known."""
        orders = {_place(*order): order for a, b in pairs for order in ((a, b), (b, a))}
        asked = [
            Asked(question(self._template, *order), f"{order[0].shown}, against {order[1].shown}", place)
            for place, order in orders.items()
            if place not in self._known
        ]
        self._model.require_budget(len(asked))
        allowed = self._bound * (self._counts[ANSWERS] + len(asked))
        for done, (each, answer) in enumerate(zip(asked, self._model.ask(asked), strict=True), start=1):
            self._known[each.place] = self._read(each, answer)
            # It would be above the bound in the end, whatever comes: no more is paid for it.
            if self._failures > allowed:
                raise self._unreadable()
            on_asked(len(orders) - len(asked) + done)

    def _read(self, asked: Asked, answer: Answer) -> float:
        self._counts[ANSWERS] += 1
        found = None if answer.refused or answer.cut else verdict(answer.text)
        if found is not None:
            return found
        reason = REFUSED if answer.refused else CUT if answer.cut else NO_VERDICT
        self._counts[reason] += 1
        if not self._first_failure:
            text = answer.text if len(answer.text) <= _QUOTED else f"{answer.text[:_QUOTED]}…"
            self._first_failure = f"{reason}, of {asked.name}: {text!r}"
        return 0.5

    @property
    def _failures(self) -> int:
        return sum(self._counts[reason] for reason in _FAILURES)

    def _unreadable(self) -> ConfigurationProblem:
        told = ", ".join(f"{reason} {self._counts[reason]}" for reason in _FAILURES if self._counts[reason])
        first = self._first_failure
        return ConfigurationProblem(
            f"{self._failures} answers of the judge {self._model.name} have no verdict, of {self._counts[ANSWERS]} so far "
            f"({told}); judge.maxParseFailures allows {self._bound:.0%} of all. The first ({first}). Correct judge.prompt so "
            "that the answer ends with [[A]], [[B]] or [[C]], or name another model.",
            reason="JudgeUnreadable",
        )


def _place(first: Response, second: Response) -> str:
    """One for each question; it also seeds its waits."""
    asked = [[dict(message) for message in first.messages], first.tools, first.text, second.text]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
