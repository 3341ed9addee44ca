"""What models whose layers do not all attend in full would silently compute in a packed row, they are refused for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.attention import require_full_attention
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.heads import use_language_head
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.plain_torch import completion_logp
from support.tiny_models import SIZES, VOCABULARY

PAIR = [Example([5, 6, 7], [[8, 9, 10], [11]])]
LONGEST = 6


def model_with(**config: object) -> Any:
    fields = SimpleNamespace(**config)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: fields))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layer_types": ["full_attention"] * 2, "sliding_window": 2},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": LONGEST},
        {"sliding_window": LONGEST},
        {"sliding_window": 2, "use_sliding_window": False},
        {"sliding_window": None},
    ],
)
def test_full_attention_and_windows_that_hold_every_sequence_are_taken(config: dict[str, object]) -> None:
    require_full_attention(model_with(**config), LONGEST)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "no full attention .linear_attention."),
        ({"attn_logit_softcapping": 50.0}, "caps the scores of its attention"),
        ({"layer_types": ["conv", "full_attention"]}, "no full attention .conv."),
        ({"layer_types": ["sliding_attention"], "sliding_window": LONGEST - 1}, "last 5 tokens alone, and a sequence here has 6"),
        ({"sliding_window": LONGEST - 1}, "last 5 tokens alone"),
        ({"sliding_window": LONGEST - 1, "use_sliding_window": True}, "last 5 tokens alone"),
    ],
)
def test_all_others_are_refused_by_name(config: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationProblem, match=words):
        require_full_attention(model_with(**config), LONGEST)


def test_a_model_that_keeps_a_state_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=8, state_size=2, num_hidden_layers=1))
    with pytest.raises(ConfigurationProblem, match="MambaForCausalLM has layers that are no full attention"):
        require_full_attention(model, LONGEST)


def test_a_real_sliding_window_scores_as_unpacked_or_not_at_all() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, sliding_window=LONGEST, **SIZES)).eval()
    examples = [*PAIR, Example([12, 13], [[14, 15]])]
    expected = [float(completion_logp(model, e.prompt, c).detach()) for e in examples for c in e.completions]
    use_language_head(model)
    [batch] = score_examples(model, examples, Packing(64, 64))
    assert sorted(batch.logps) == pytest.approx(sorted(expected), abs=1e-5)
    with pytest.raises(ConfigurationProblem, match="last 6 tokens alone"):
        list(score_examples(model, [Example([5] * 4, [[6] * 3])], Packing(64, 64)))
