"""How far apart are log-probs of one reference, computed twice, and those of another? `python benchmarks/reference_tolerance.py`

The guard on every train (rlhf_trainer.training.rank.guard) compares cached reference log-probs with the trainer's own forward. Its
tolerance must let pass what rounding does: the same weights in the same dtype, packed into other rows and batches. It must stop
what is another reference: other weights, or prompts under another template. This measures both, with the guard's own function, on

- the quickstart's model after a short supervised training (a model that has learnt nothing hardly depends on its prompt),
- Llamas with random weights, wider and deeper, for how rounding grows with depth.

Prints a line a case, in nats per token: the largest over several sets of pairs of what must pass, the smallest of what must stop.
Eight minutes on two cores without bf16 instructions.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_api.resource.model import Dtype
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing, build_batch
from rlhf_trainer.models.chat import Chat
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.quickstart import task
from rlhf_trainer.quickstart.world import Size, make_world
from rlhf_trainer.stages.train import GUARD_TOLERANCE
from rlhf_trainer.training.objectives import SupervisedObjective
from rlhf_trainer.training.rank.guard import EXAMPLES, reference_difference

SETS = 4
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRAINER = Packing(64, 2048)
PACKINGS = {"one pair a row": Packing(1, 1), "long rows": Packing(512, 512), "other batches": Packing(64, 512)}


@dataclass(frozen=True)
class Case:
    dtype: Dtype
    what: str
    must_pass: bool
    differences: list[float]

    @property
    def worst(self) -> float:
        return max(self.differences) if self.must_pass else min(self.differences)

    @property
    def right(self) -> bool:
        return (self.worst <= GUARD_TOLERANCE[self.dtype]) == self.must_pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="steps of supervised training of the quickstart's model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        cases = list(_cases(Path(place), arguments.steps))
    print(f"{'dtype':<10} {'nats per token':>14}  {'allowed':>8}  what, on {DEVICE.type} with torch {torch.__version__}")
    for case in cases:
        verdict = "" if case.right else "  WRONG"
        told = "passes" if case.must_pass else "stops "
        print(f"{case.dtype:<10} {case.worst:>14.2e}  {GUARD_TOLERANCE[case.dtype]:>8.0e}  {told} {case.what}{verdict}")
    return 0 if all(case.right for case in cases) else 1


def _cases(place: Path, steps: int) -> Iterator[Case]:
    make_world(place / "world", 0, Size(prompts_per_iteration=100, validation=10, test=0, demonstrations=100, preferences=10))
    base = place / "world" / "model"
    tokenizer = load_vocabulary(base, None, [], trust_remote_code=False).tokenizer
    trained, further = _train(base, tokenizer, place, steps)
    sets = [_pairs(tokenizer, seed) for seed in range(SETS)]
    for dtype in Dtype:
        for name, packing in PACKINGS.items():
            yield Case(dtype, f"the trained model, {name}", True, _differences(trained, dtype, [(s, s) for s in sets], packing))
        for what, change in (("no assistant header", _without_header(tokenizer)), ("no BOS", lambda ids: ids[1:])):
            changed = [[Example(change(e.prompt), e.completions) for e in pairs] for pairs in sets]
            yield Case(
                dtype, f"another template: {what}", False, _differences(trained, dtype, list(zip(changed, sets, strict=True)))
            )
        for what, other in (("20 steps later", further), ("before its training", base)):
            found = _differences(other, dtype, [(s, s) for s in sets], reference=trained)
            yield Case(dtype, f"other weights: the model {what}", False, found)
    for width, layers in ((256, 6), (256, 24), (512, 12)):
        folder = _random_llama(place / f"llama-{width}-{layers}", width, layers)
        pairs = _random_pairs()
        found = _differences(folder, Dtype.BFLOAT16, [(pairs, pairs)], PACKINGS["long rows"])
        yield Case(Dtype.BFLOAT16, f"random weights, {layers} layers of {width}, long rows", True, found)


def _differences(
    cached_under: Path,
    dtype: Dtype,
    sets: Sequence[tuple[Sequence[Example], Sequence[Example]]],
    packing: Packing = TRAINER,
    reference: Path | None = None,
) -> list[float]:
    """For each (pairs as they were cached, pairs as they are trained on): what the guard finds."""
    model = load_causal_lm(cached_under, TORCH_DTYPE[dtype]).to(DEVICE)
    found = []
    for before, after in sets:
        logps: dict[int, list[float]] = {}
        for batch in score_examples(model, list(before), packing):
            for number, example in enumerate(batch.examples):
                logps[id(example)] = batch.logps[2 * number : 2 * number + 2]
        cached = [
            Example(now.prompt, now.completions, None, reference=tuple(logps[id(then)]))
            for then, now in zip(before, after, strict=True)
        ]
        found.append(reference_difference(reference or cached_under, dtype, cached, DEVICE, TRAINER, trust_remote_code=False))
    return found


def _train(base: Path, tokenizer: Any, place: Path, steps: int) -> tuple[Path, Path]:
    """The model after `steps` of plain supervised training, and after 20 more at a tenth of the learning rate."""
    rng = random.Random(0)
    end = frozenset({tokenizer.eos_token_id})
    model = load_causal_lm(base, torch.float32).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(steps + 20):
        if step == steps:
            model.save_pretrained(str(place / "trained"))
            optimizer.param_groups[0]["lr"] = 2e-4
        examples = []
        for _ in range(64):
            prompt = task.make_prompt(rng)
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": task.demonstrate(prompt, rng)}]
            chat = Chat(tokenizer)
            [draft] = chat.conversation(turns)
            answered = chat.answered(draft, end)
            ids, counted = answered.ids, answered.counted
            examples.append(Example([], [ids], [counted]))
        loss = SupervisedObjective()(model, build_batch([[example] for example in examples]).to(DEVICE)).loss
        (loss / sum(example.counted_tokens for example in examples)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(place / "further"))
    return place / "trained", place / "further"


def _pairs(tokenizer: Any, seed: int) -> list[Example]:
    rng = random.Random(seed)
    found = []
    for _ in range(EXAMPLES):
        prompt = task.make_prompt(rng)
        ids = Chat(tokenizer).prompt([{"role": "user", "content": prompt}])
        texts = (task.demonstrate(prompt, rng), task.attempt(prompt, rng))
        found.append(Example(ids, [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]))
    return found


def _without_header(tokenizer: Any) -> Any:
    header = tokenizer.convert_tokens_to_ids("<|assistant|>")
    return lambda ids: [token for token in ids if token != header]


def _random_pairs() -> list[Example]:
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(3, 8000) for _ in range(count)]

    return [Example(ids(20), [ids(30), ids(30)]) for _ in range(EXAMPLES)]


def _random_llama(folder: Path, width: int, layers: int) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=1024,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    sys.exit(main())
