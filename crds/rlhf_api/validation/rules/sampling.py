"""Rules of sample, and of every stage that is split into shards."""

from __future__ import annotations

from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.sampling import IterateType, Sample, split_completions
from rlhf_api.resource.training import Label, Reference
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.suggest import did_you_mean
from rlhf_api.validation.walk import SPEC, models

_SAMPLE: Loc = (*SPEC, "sample")
#: vLLM's engine arguments that decide about memory and speed alone, as far as anybody knows; all others are in no fingerprint.
FREE_ENGINE_ARGUMENTS = frozenset(
    (
        *("max-num-seqs", "max-num-batched-tokens", "long-prefill-token-threshold", "enable-chunked-prefill", "scheduling-policy"),
        *("enable-prefix-caching", "block-size", "num-gpu-blocks-override", "kv-cache-memory-bytes", "cpu-offload-gb"),
        *("kv-offloading-size", "kv-offloading-backend", "enforce-eager", "compilation-config", "optimization-level"),
        *("cudagraph-capture-sizes", "max-cudagraph-capture-size", "attention-backend", "disable-cascade-attn", "async-scheduling"),
        *(
            "disable-custom-all-reduce",
            "distributed-executor-backend",
            "enable-flashinfer-autotune",
            "max-parallel-loading-workers",
        ),
        *("safetensors-load-strategy", "numa-bind", "disable-log-stats"),
    )
)


def parallelism_within_shards(spec: RLHFRunSpec) -> Problems:
    for loc, stage in models(spec, SPEC):
        if isinstance(stage, Sample | Label | Reference) and stage.parallelism > stage.shards:
            yield Problem(
                (*loc, "parallelism"),
                f"more at a time than shards there are: {stage.shards}",
                f"write at most {stage.shards}, or raise shards",
                depends=((*loc, "shards"),),
            )


def every_entry_samples(spec: RLHFRunSpec) -> Problems:
    """Each prompt's completions are split by weight; an entry that gets none does nothing."""
    sample = spec.sample
    counts = split_completions(sample.completions_per_prompt, [entry.weight for entry in sample.mixture])
    weights: tuple[Loc, ...] = tuple((*_SAMPLE, "mixture", index, "weight") for index in range(len(counts)))
    for index, count in enumerate(counts):
        if count == 0:
            yield Problem(
                weights[index],
                f"too small for one of the {sample.completions_per_prompt} completions of a prompt: the entries get {counts}",
                "raise the weight or completionsPerPrompt, or remove the entry",
                depends=((*_SAMPLE, "completionsPerPrompt"), (*_SAMPLE, "mixture"), *weights),
            )


def greedy_entries_answer_once(spec: RLHFRunSpec) -> Problems:
    """The same completion several times is no exploration, and its pairs are all ties."""
    sample = spec.sample
    counts = split_completions(sample.completions_per_prompt, [entry.weight for entry in sample.mixture])
    for index, (entry, count) in enumerate(zip(sample.mixture, counts, strict=True)):
        if count > 1 and (entry.temperature == 0 or entry.top_k == 1):
            entry_loc: Loc = (*_SAMPLE, "mixture", index)
            yield Problem(
                (*entry_loc, "temperature" if entry.temperature == 0 else "topK"),
                f"greedy, and would give each prompt the same completion {count} times",
                "raise it, or lower the entry's weight so that it gives one completion",
                depends=((*_SAMPLE, "completionsPerPrompt"), (*_SAMPLE, "mixture"), (*entry_loc, "weight")),
            )


def engine_arguments_change_no_answer(spec: RLHFRunSpec) -> Problems:
    """An artifact's identity has the model and how it was sampled; what changes either belongs there, and not beside it."""
    for index, argument in enumerate(spec.sample.engine.extra_args):
        name = argument.removeprefix("--").partition("=")[0].replace("_", "-")
        if not argument.startswith("--") or name not in FREE_ENGINE_ARGUMENTS:
            yield Problem(
                (*_SAMPLE, "engine", "extraArgs", index),
                "no engine argument for memory or speed that is known to change no answer",
                did_you_mean(f"--{name}", [f"--{free}" for free in FREE_ENGINE_ARGUMENTS])
                or "remove it; write such as --max-num-seqs=64",
            )


def numbered_iterates_exist(spec: RLHFRunSpec) -> Problems:
    """{type: Number, iteration: k} is pi_k for k < t, and t ends at T."""
    for index, entry in enumerate(spec.sample.mixture):
        number = entry.iterate.iteration
        if entry.iterate.type is IterateType.NUMBER and number is not None and number >= spec.iterations:
            yield Problem(
                (*_SAMPLE, "mixture", index, "iterate", "iteration"),
                f"pi_{number} is never sampled from: the last iteration, {spec.iterations}, starts from pi_{spec.iterations - 1}",
                f"write at most {spec.iterations - 1}",
                depends=((*SPEC, "iterations"), (*_SAMPLE, "mixture", index, "iterate", "type")),
            )
