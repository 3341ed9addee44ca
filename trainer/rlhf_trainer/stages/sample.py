"""sample: n completions a prompt from the mixture, a shard of the prompts a worker; ids exactly as the engine gave them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.sampling import split_completions
from rlhf_api.stage import Sampler, SampleWork, StageResult

from .. import chat
from ..engine import Completion, Request, SamplingEngine, request_seed
from ..models import Vocabulary, load_vocabulary
from ..parquet import SAMPLES
from ..prompts import Prompt, load_prompt_sets
from ..runtime import StageContext, log, log_counts, model_inputs, work_of
from ..sharding import commit_and_seal, is_committed, shard_of


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem when no prompt is short enough, or the engine refuses the model."""
    work = work_of(context, SampleWork)
    inputs = model_inputs(*(sampler.policy for sampler in work.samplers))
    if is_committed(context):
        return commit_and_seal(context, None, inputs=inputs)
    prompts = _prompts_of_shard(context, work)
    counts = {"prompts": len(prompts)}
    rows: list[dict[str, Any]] = []
    total = len(prompts) * work.completions_per_prompt
    # Samplers of the same iterate share one engine: loading is what costs.
    split = split_completions(work.completions_per_prompt, [sampler.entry.weight for sampler in work.samplers])
    first_index = 0
    for _, group in groupby(zip(work.samplers, split, strict=True), key=lambda pair: pair[0].policy):
        members = list(group)
        rows += _sample_from(context, work, prompts, members, first_index, counts, len(rows), total)
        first_index += sum(count for _, count in members)
    rows.sort(key=lambda row: (row["prompt_id"], row["completion_index"]))
    file = context.scratch / "samples.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), file)
    log_counts("sampled", counts)
    return commit_and_seal(context, {"samples": file}, rows=len(rows), counts=counts, inputs=inputs)


def _prompts_of_shard(context: StageContext, work: SampleWork) -> Sequence[Prompt]:
    cut = work.prompts
    sets = load_prompt_sets(
        cut.prompts, cut.iterations, context.scratch / "inputs", context.config.storage, cut.source_revisions, last=cut.iteration
    )
    prompts = sets.training[cut.iteration - 1]
    log.info("iteration %d has %d prompts", cut.iteration, len(prompts))
    return shard_of(prompts, context.shard, context.config.execution.shards)


def _sample_from(
    context: StageContext,
    work: SampleWork,
    prompts: Sequence[Prompt],
    members: Sequence[tuple[Sampler, int]],
    first_index: int,
    counts: dict[str, int],
    done: int,
    total: int,
) -> list[dict[str, Any]]:
    """Rows of all prompts from one iterate, under each of its mixture entries."""
    policy = members[0][0].policy
    folder = context.model_folder(policy.model)
    trust = context.trusts(policy.model)
    vocabulary = load_vocabulary(folder, policy.chat_template, policy.stop_token_ids, trust_remote_code=trust)
    requests, plan = [], []
    for sampler, count in members:
        for prompt in prompts:
            prompt_ids, asked_ids = _encode(vocabulary, prompt, sampler)
            if len(asked_ids) > work.prompts.max_prompt_length:
                counts["promptsTooLong"] = counts.get("promptsTooLong", 0) + (
                    1 if sampler is members[0][0] and first_index == 0 else 0
                )
                continue
            entry = sampler.entry
            seed = request_seed(context.config.seed, work.prompts.iteration, prompt.id, entry.name)
            requests.append(Request(asked_ids, count, entry.temperature, entry.top_p, entry.top_k, work.max_new_tokens, seed))
            plan.append((prompt, prompt_ids, sampler, first_index))
        first_index += count
    if not requests:
        return []
    longest = work.prompts.max_prompt_length + work.max_new_tokens
    engine = SamplingEngine(
        folder,
        vocabulary.tokenizer,
        vocabulary.stop_ids,
        policy.dtype,
        longest,
        context.config.execution.engine,
        trust_remote_code=trust,
    )
    rows: list[dict[str, Any]] = []
    for (prompt, prompt_ids, sampler, first), completions in zip(plan, engine.generate(requests), strict=True):
        rows += [_row(prompt, prompt_ids, sampler, first + i, c, vocabulary) for i, c in enumerate(completions)]
        context.progress.update(done + len(rows), total, "completions")
    engine.close()
    counts["completions"] = counts.get("completions", 0) + len(rows)
    counts["lengthStopped"] = counts.get("lengthStopped", 0) + sum(row["finish_reason"] == "length" for row in rows)
    return rows


def _encode(vocabulary: Vocabulary, prompt: Prompt, sampler: Sampler) -> tuple[list[int], list[int]]:
    """Ids of the prompt as training sees it, and as this sampler is asked (with its system prompt)."""
    plain = chat.encode_prompt(vocabulary.tokenizer, prompt.messages)
    if sampler.entry.system_prompt is None:
        return plain, plain
    asked = [{"role": "system", "content": sampler.entry.system_prompt}, *prompt.messages]
    return plain, chat.encode_prompt(vocabulary.tokenizer, asked)


def _row(
    prompt: Prompt, prompt_ids: list[int], sampler: Sampler, index: int, completion: Completion, vocabulary: Vocabulary
) -> dict[str, Any]:
    return {
        "prompt_id": prompt.id,
        "prompt_ids": prompt_ids,
        "messages": [dict(message) for message in prompt.messages],
        "completion_index": index,
        "completion_ids": list(completion.ids),
        "text": completion.text,
        "logps": list(completion.logps),
        "finish_reason": completion.finish_reason,
        "iterate": sampler.iterate,
        "temperature": sampler.entry.temperature,
        "template_hash": vocabulary.template_hash,
    }
