"""Models whose layers obey a packed row's mask, models that are read one completion a row, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.attention import obeys_tree_mask, require_known_attention
from rlhf_trainer.forward.logps import completion_sums, score_examples, token_logps
from rlhf_trainer.forward.rows import Packing, build_batch
from rlhf_trainer.models.heads import use_language_head
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.plain_torch import completion_logp, named
from support.tiny_models import SIZES, VOCABULARY

LONGEST = 6
#: Prompts with several completions, one without a prompt, lengths on both sides of a window.
EXAMPLES = [
    Example([5, 6, 7], [[8, 9, 10], [11], [12, 13, 14, 15, 16, 17]]),
    Example([18, 19], [[20, 21]]),
    Example([], [[22, 23, 24, 25]]),
    Example([26] * 9, [[27, 28], [29, 30, 31]]),
]


def model_with(**config: object) -> Any:
    fields = SimpleNamespace(**config)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: fields))


def mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, sliding_window=LONGEST, **SIZES))


def gemma_3() -> Any:
    """Every other layer slides."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(vocab_size=VOCABULARY, sliding_window=4, layer_types=kinds, head_dim=8, query_pre_attn_scalar=8, **SIZES)
    )


def lfm_2() -> Any:
    """A convolution, then attention."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    kinds = ["conv", "full_attention"]
    return Lfm2ForCausalLM(Lfm2Config(vocab_size=VOCABULARY, layer_types=kinds, block_auto_adjust_ff_dim=False, **SIZES))


def qwen_3_next() -> Any:
    """A gated delta rule, then attention; experts."""
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    return Qwen3NextForCausalLM(
        Qwen3NextConfig(
            vocab_size=VOCABULARY,
            layer_types=["linear_attention", "full_attention"],
            head_dim=8,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            **SIZES,
        )
    )


def mamba() -> Any:
    """A state, and no attention at all."""
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2))


UNPACKED = [mistral, gemma_3, lfm_2, qwen_3_next, mamba]


def made(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make().float().eval()


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
def test_full_attention_and_windows_that_hold_every_sequence_are_packed(config: dict[str, object]) -> None:
    assert obeys_tree_mask(model_with(**config), LONGEST)


@pytest.mark.parametrize(
    "config",
    [
        {"layer_types": ["full_attention", "linear_attention"]},
        {"layer_types": ["conv", "full_attention"]},
        {"layer_types": ["chunked_attention"]},
        {"layer_types": ["sliding_attention"], "sliding_window": LONGEST - 1},
        {"sliding_window": LONGEST - 1},
        {"sliding_window": LONGEST - 1, "use_sliding_window": True},
    ],
)
def test_all_others_are_not(config: dict[str, object]) -> None:
    assert not obeys_tree_mask(model_with(**config), LONGEST)


def test_capped_scores_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationProblem, match="caps the scores of its attention"):
        require_known_attention(model_with(attn_logit_softcapping=50.0), LONGEST)


@pytest.mark.parametrize("make", UNPACKED)
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_what_cannot_be_packed_is_scored_as_its_makers_code_does(make: Callable[[], Any], budget: int) -> None:
    model = made(make)
    assert not obeys_tree_mask(model, max(example.longest for example in EXAMPLES))
    expected = {id(e): [float(completion_logp(model, e.prompt, c).detach()) for c in e.completions] for e in EXAMPLES if e.prompt}
    use_language_head(model)
    found: dict[int, list[float]] = {}
    for batch in score_examples(model, EXAMPLES, Packing(64, budget)):
        logps = iter(batch.logps)
        found |= {id(example): [next(logps) for _ in example.completions] for example in batch.examples}
    for example, values in expected.items():
        assert found[example] == pytest.approx(values, abs=2e-5)


@pytest.mark.parametrize("make", UNPACKED)
def test_its_gradients_are_those_of_one_forward_a_completion(make: Callable[[], Any]) -> None:
    """A prompt's, too, which several completions have in common."""
    model = made(make)
    weights = [0.5, -1.0, 0.25, 2.0, 1.0, -0.5]
    examples = [example for example in EXAMPLES if example.prompt]
    pairs = [(example.prompt, completion) for example in examples for completion in example.completions]
    sum(weight * completion_logp(model, *pair) for weight, pair in zip(weights, pairs, strict=True)).backward()  # type: ignore[union-attr]
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    use_language_head(model)
    batch = build_batch([examples[:2], examples[2:]])
    (completion_sums(token_logps(model, batch), batch) * torch.tensor(weights)).sum().backward()
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], atol=2e-4, rtol=1e-3, msg=named(name))


@pytest.mark.parametrize("make", UNPACKED)
def test_an_idle_rank_goes_through_it_too(make: Callable[[], Any]) -> None:
    model = made(make)
    use_language_head(model)
    found = token_logps(model, build_batch([]))
    assert found.numel() == 0
    found.sum().backward()


def test_a_window_that_holds_some_batches_alone_is_the_same_model_in_all() -> None:
    model = made(mistral)
    short = [Example([5, 6, 7], [[8, 9, 10], [11]]), Example([12, 13], [[14, 15]])]
    expected = [float(completion_logp(model, e.prompt, c).detach()) for e in short for c in e.completions]
    use_language_head(model)
    [batch] = score_examples(model, short, Packing(64, 64))
    assert sorted(batch.logps) == pytest.approx(sorted(expected), abs=1e-5)
