"""What a multi-objective reward model with a gate is, by its config.json, the names of its tensors and its tokenizer.

As RLHFlow publish ArmoRM-Llama3-8B-v0.1 (arXiv 2406.12845; RLHFlow/RLHF-Reward-Modeling, armo-rm, fc39179). A linear layer gives
the last token of a conversation K rewards. An MLP, the gate, reads the prompt, and weighs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.stored import Shape
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.runtime.errors import ConfigurationProblem

ARCHITECTURE = "LlamaForRewardModelWithGating"
REGRESSION, TRANSFORM, SCALE = "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"
#: What stands between a prompt and its answer. The gate reads the state of its first token, which has seen all of the prompt.
HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
_BEGINNINGS = ("\n", "\n\n", " ", " \n")
#: Of layers, units or rewards: no model has as many, and the names of so many tensors still fit into memory.
_MOST = 1_000_000
_CONTROLS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")


@dataclass(frozen=True)
class GatedShape:
    """hidden_size: d of the trunk; objectives: K; layers of the gate's MLP: n_hidden of hidden_dim, and one of K."""

    hidden_size: int
    objectives: int
    temperature: float
    hidden_dim: int
    n_hidden: int

    @classmethod
    def of(cls, config: Mapping[str, Any], model: str) -> GatedShape:
        """What config.json leaves out is what the authors' code takes then.

        Raises ConfigurationProblem, with `model` as its name.
        """
        if config.get("model_type") != "llama":
            raise ConfigurationProblem(
                f"{model} has a body of model_type {config.get('model_type')!r}, and multi-objective reward models of this version "
                "have a Llama's. Name a model like RLHFlow/ArmoRM-Llama3-8B-v0.1."
            )
        temperature = config.get("gating_temperature", 10)
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise _no_number(model, "gating_temperature", temperature, "a number above 0")
        return cls(
            _count(config, model, "hidden_size", None),
            _count(config, model, "num_objectives", 19),
            float(temperature),
            _count(config, model, "gating_hidden_dim", 1024),
            _count(config, model, "gating_n_hidden", 3, least=0),
        )

    @property
    def tensors(self) -> dict[str, Shape]:
        """All that is not the trunk's, by name."""
        inputs = [self.hidden_size, *[self.hidden_dim] * self.n_hidden]
        outputs = [*inputs[1:], self.objectives]
        found: dict[str, Shape] = {
            REGRESSION: (self.objectives, self.hidden_size),
            TRANSFORM: (self.objectives, self.objectives),
            SCALE: (1,),
        }
        for number, (width, height) in enumerate(zip(inputs, outputs, strict=True)):
            found |= {gate_layer(number, "weight"): (height, width), gate_layer(number, "bias"): (height,)}
        return found


class Gate:
    """Where the gate reads: the ids of HEADER, in the model's own tokenizer."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        """Raises ConfigurationProblem, with `model` as its name, for a tokenizer to which HEADER is no control tokens."""
        vocabulary = tokenizer.get_vocab()
        self._header = list(tokenizer(HEADER, add_special_tokens=False)["input_ids"])
        if any(control not in vocabulary or self._header.count(vocabulary[control]) != 1 for control in _CONTROLS):
            raise ConfigurationProblem(
                f"The tokenizer of {model} has no tokens of their own for {', '.join(_CONTROLS)}, at which the gate of a "
                "multi-objective reward model reads the prompt. Name a model with a tokenizer of Llama 3, as it was trained."
            )

    @property
    def header(self) -> list[int]:
        """The ids themselves."""
        return list(self._header)

    def place(self, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """The token of a conversation whose state the gate reads: where HEADER stands the last time, as in the authors' code.

        Raises TemplateRefusal where it does not stand there as the model knows it, or not in front of the answer.
        """
        ids, count = [*prompt, *answer], len(self._header)
        for start in range(len(ids) - count, -1, -1):
            if ids[start] == self._header[0] and ids[start : start + count] == self._header:
                if start < len(prompt):
                    return start
                raise TemplateRefusal("Its chat template writes the header of an answer within or behind the answer itself.")
        raise TemplateRefusal(
            f"The header of an answer, {HEADER!r} (ids {self._header}), at which its gate reads the prompt, does not stand in the "
            "conversation as its chat template and tokenizer have it."
        )

    def require_before_any_answer(self, chat: Chat, model: str) -> None:
        """HEADER stands in front of an answer however that begins. Raises ConfigurationProblem, with `model` as its name.

        A policy may begin with a line break, which Llama 3's tokenizer makes one token of with those of the header.
        """
        for begin in _BEGINNINGS:
            asked = chat.exchange([{"role": "user", "content": "Hello"}], {"role": "assistant", "content": f"{begin}Yes."})
            try:
                self.place(*chat.sides(asked))
            except TemplateRefusal as refusal:
                raise ConfigurationProblem(
                    f"{model}, asked about an answer that begins with {begin!r}: {refusal} Give its tokenizer the chat template "
                    "that it was trained with; Llama 3's trims what is said."
                ) from refusal


def gate_layer(number: int, part: str) -> str:
    return f"gating.layers.{number}.{part}"


def _count(config: Mapping[str, Any], model: str, name: str, default: int | None, *, least: int = 1) -> int:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise _no_number(model, name, value, f"a whole number from {least} to {_MOST}")
    return value


def _no_number(model: str, name: str, value: object, expected: str) -> ConfigurationProblem:
    return ConfigurationProblem(
        f"{model} has {name} {value!r} in its config.json; expected {expected}. Copy the file anew, or name another model."
    )
