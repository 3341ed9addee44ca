"""A chat model that the stage reads itself, with vLLM: greedy, under its own template; the engine is there while it is asked."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_api.resource.model import Dtype
from rlhf_api.resource.sampling import Engine
from rlhf_trainer.models.sampling.engine import Request, SamplingEngine
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .asking import ANSWER_TOKENS, Answer, Asked

#: Further figures of a generation_config.json that a server would apply at temperature 0, too.
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


class OwnModel:
    """A folder with a chat model, by the name that its manifest has for it."""

    def __init__(self, folder: Path, name: str, engine: Engine, *, trust_remote_code: bool = False) -> None:
        """Raises ConfigurationProblem for one without a chat template."""
        self._folder, self._name, self._engine, self._trusts = folder, name, engine, trust_remote_code
        self._vocabulary = load_vocabulary(folder, None, [], trust_remote_code=trust_remote_code)
        self._positions = positions_of(folder)
        self._requests = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def requests(self) -> int:
        return self._requests

    def require_budget(self, wanted: int) -> None:
        """It costs no more than time."""

    def ask(self, questions: Sequence[Asked]) -> Iterator[Answer]:
        """The answer to each, in order. Raises ConfigurationProblem where one is too long, or the engine refuses the model.

        The engine is closed behind the last: what else a stage reads has the memory then.
        """
        if not questions:
            return
        ids = [self._ids(asked) for asked in questions]
        engine = self._open(max(map(len, ids)) + ANSWER_TOKENS)
        try:
            requests = [Request(each, 1, 0.0, 1.0, 0, ANSWER_TOKENS, seed=0) for each in ids]
            for (completion,) in engine.generate(requests):
                self._requests += 1
                yield Answer(completion.text, cut=not completion.stopped)
        finally:
            engine.close()

    def _ids(self, asked: Asked) -> list[int]:
        try:
            ids = question_ids(self._vocabulary, asked.text)
        except ConfigurationProblem as problem:
            raise ConfigurationProblem(f"The judge {self._name} cannot be asked about {asked.name}: {problem}") from problem
        if self._positions is not None and len(ids) + ANSWER_TOKENS > self._positions:
            raise ConfigurationProblem(
                f"The judge {self._name} cannot be asked about {asked.name}: the question has {len(ids)} tokens, and with "
                f"{ANSWER_TOKENS} for the answer that is more than its {self._positions} positions. Name a judge with a longer "
                "context, or lower sample.maxNewTokens."
            )
        return ids

    def _open(self, max_length: int) -> SamplingEngine:
        import torch

        # The engine asks for a share of all memory, and what torch keeps for later is not free to it.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return SamplingEngine(
            self._folder,
            self._vocabulary.tokenizer,
            self._vocabulary.stop_ids,
            Dtype.BFLOAT16 if torch.cuda.is_available() else Dtype.FLOAT32,
            max_length,
            self._engine,
            trust_remote_code=self._trusts,
        )


def question_ids(vocabulary: Vocabulary, text: str) -> list[int]:
    """One turn of the user, and the header of the answer. Raises ConfigurationProblem where the template cannot write it."""
    return vocabulary.chat.prompt([{"role": "user", "content": text}])


def positions_of(folder: Path) -> int | None:
    """Tokens that the model has places for, by its config.json; None where that does not say."""
    config = _object(folder / "config.json")
    text = config.get("text_config")
    limit = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def penalties_of(folder: Path) -> dict[str, float]:
    """What generation_config.json would have a server do to an answer, and is not done here."""
    found = _object(folder / "generation_config.json")
    neutral = {name: 1.0 if name == PENALTIES[0] else 0.0 for name in PENALTIES}
    return {
        name: value for name, none in neutral.items() if isinstance(value := found.get(name), int | float) and float(value) != none
    }


def _object(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
