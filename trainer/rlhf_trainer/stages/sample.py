"""sample: n completions a prompt from the mixture, a shard of the prompts a worker; ids exactly as the engine gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.sampling import split_completions
from rlhf_api.stage import Sampler, SampleWork, StageResult
from rlhf_trainer.data.parquet import ANSWER, samples_schema, tools_text
from rlhf_trainer.data.prompts import Prompt, load_prompt_sets
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.models.sampling.engine import Completion, Request, SamplingEngine, request_seed
from rlhf_trainer.models.vocabulary import Vocabulary, vocabulary_of
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.result import log_counts, model_inputs
from rlhf_trainer.runtime.sharding import commit_and_seal, is_committed, shard_of


@dataclass(frozen=True)
class Entry:
    """A sampler and which completions of each prompt are its own: first … first + count - 1."""

    sampler: Sampler
    first: int
    count: int


@dataclass(frozen=True)
class Question:
    """A prompt as an entry asks it. prompt_ids: as training sees it; asked_ids: with the entry's system prompt."""

    prompt: Prompt
    entry: Entry
    prompt_ids: list[int]
    asked_ids: list[int]


def run(context: StageContext) -> StageResult:
    """Raises ConfigurationProblem when no prompt is short enough, or the engine refuses the model."""
    work = work_of(context, SampleWork)
    inputs = model_inputs(*(sampler.policy for sampler in work.samplers))
    if is_committed(context):
        return commit_and_seal(context, None, inputs=inputs, check=_require_completions)
    groups = by_policy(entries_of(work))
    policies = [group[0].sampler.policy for group in groups]
    vocabularies = [vocabulary_of(policy, model_folder(context, policy.model)) for policy in policies]
    _require_one_template(vocabularies)
    prompts = _prompts_of_shard(context, work, vocabularies[0])
    questions, too_long = _questions(work, prompts, groups, vocabularies)
    counts = {"prompts": len(prompts), "promptsTooLong": too_long, "completions": 0, "lengthStopped": 0}
    rows: list[dict[str, Any]] = []
    total = sum(question.entry.count for part in questions for question in part)
    for part, vocabulary in zip(questions, vocabularies, strict=True):
        rows += _ask(context, work, part, vocabulary, len(rows), total)
    counts["completions"] = len(rows)
    counts["lengthStopped"] = sum(row["finish_reason"] == "length" for row in rows)
    rows.sort(key=lambda row: (row["prompt_id"], row["completion_index"]))
    file = context.scratch / "samples.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=samples_schema(work.prompts)), file)
    log_counts("sampled", counts)
    return commit_and_seal(context, {"samples": file}, rows=len(rows), counts=counts, inputs=inputs, check=_require_completions)


def entries_of(work: SampleWork) -> list[Entry]:
    """The mixture, with each entry's completions of a prompt: by weight, in order. Raises ConfigurationProblem for greedy ones."""
    entries: list[Entry] = []
    first = 0
    counts = split_completions(work.completions_per_prompt, [sampler.entry.weight for sampler in work.samplers])
    for sampler, count in zip(work.samplers, counts, strict=True):
        if count > 1 and (sampler.entry.temperature == 0 or sampler.entry.top_k == 1):
            raise ConfigurationProblem(
                f"sample.mixture entry {sampler.entry.name} is greedy and would give the same completion {count} times. Lower its "
                "weight so that it gives one, or raise its temperature."
            )
        if count:
            entries.append(Entry(sampler, first, count))
        first += count
    return entries


def by_policy(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of the same iterate share one engine, wherever they stand in the mixture: loading is what costs."""
    groups: list[list[Entry]] = []
    for entry in entries:
        own = next((group for group in groups if group[0].sampler.policy == entry.sampler.policy), None)
        if own is None:
            groups.append([entry])
        else:
            own.append(entry)
    return groups


def _require_one_template(vocabularies: Sequence[Vocabulary]) -> None:
    """Raises ConfigurationProblem where iterates of one mixture have different templates: they are asked other things."""
    if len({vocabulary.template_hash for vocabulary in vocabularies}) > 1:
        raise ConfigurationProblem(
            "The iterates of sample.mixture have different chat templates, or are told different dates: their answers cannot be "
            "compared. Delete the run and begin it again with one template."
        )


def _prompts_of_shard(context: StageContext, work: SampleWork, vocabulary: Vocabulary) -> Sequence[Prompt]:
    cut = work.prompts
    sets = load_prompt_sets(
        cut.prompts,
        cut.iterations,
        context.scratch / "inputs",
        context.config.storage,
        cut.source_revisions,
        last=cut.iteration,
        identify=identify_by(cut.identity, vocabulary.chat),
    )
    prompts = sets.training[cut.iteration - 1]
    log.info("iteration %d has %d prompts", cut.iteration, len(prompts))
    return shard_of(prompts, context.shard, context.config.execution.shards)


def _questions(
    work: SampleWork, prompts: Sequence[Prompt], groups: Sequence[Sequence[Entry]], vocabularies: Sequence[Vocabulary]
) -> tuple[list[list[Question]], int]:
    """Questions of each group, and the number of prompts that are left out.

    Too long for one entry is too long for all: a prompt with fewer completions than the others could not be labeled.
    """
    asked = [
        [Question(prompt, entry, *_encode(vocabulary, prompt, entry.sampler)) for entry in group for prompt in prompts]
        for group, vocabulary in zip(groups, vocabularies, strict=True)
    ]
    limit = work.prompts.max_prompt_length
    too_long = {question.prompt.id for part in asked for question in part if len(question.asked_ids) > limit}
    return [[question for question in part if question.prompt.id not in too_long] for part in asked], len(too_long)


def _encode(vocabulary: Vocabulary, prompt: Prompt, sampler: Sampler) -> tuple[list[int], list[int]]:
    plain = vocabulary.chat.prompt(prompt.messages, prompt.tools)
    if sampler.entry.system_prompt is None:
        return plain, plain
    asked = [{"role": "system", "content": sampler.entry.system_prompt}, *prompt.messages]
    return plain, vocabulary.chat.prompt(asked, prompt.tools)


def _ask(
    context: StageContext, work: SampleWork, questions: Sequence[Question], vocabulary: Vocabulary, done: int, total: int
) -> list[dict[str, Any]]:
    """Rows of one iterate's answers."""
    if not questions:
        return []
    policy = questions[0].entry.sampler.policy
    engine = SamplingEngine(
        model_folder(context, policy.model),
        vocabulary.tokenizer,
        vocabulary.stop_ids,
        policy.dtype,
        work.prompts.max_prompt_length + work.max_new_tokens,
        context.config.execution.engine,
        trust_remote_code=trusts(policy.model),
        deterministic=work.deterministic,
    )
    rows: list[dict[str, Any]] = []
    answers = engine.generate([_request(context, work, question) for question in questions])
    for question, completions in zip(questions, answers, strict=True):
        rows += [_row(question, index, completion, vocabulary) for index, completion in enumerate(completions)]
        context.progress.update(done + len(rows), total, "completions")
    engine.close()
    return rows


def _request(context: StageContext, work: SampleWork, question: Question) -> Request:
    entry = question.entry.sampler.entry
    seed = request_seed(context.config.seed, work.prompts.iteration, question.prompt.id, entry.name)
    count = question.entry.count
    return Request(question.asked_ids, count, entry.temperature, entry.top_p, entry.top_k, work.max_new_tokens, seed)


def _row(question: Question, index: int, completion: Completion, vocabulary: Vocabulary) -> dict[str, Any]:
    sampler = question.entry.sampler
    return {
        "prompt_id": question.prompt.id,
        "prompt_ids": question.prompt_ids,
        "messages": [dict(message) for message in question.prompt.messages],
        "completion_index": question.entry.first + index,
        "completion_ids": list(completion.ids),
        "text": completion.text,
        "logps": list(completion.logps),
        "finish_reason": completion.finish_reason,
        "iterate": sampler.iterate,
        "temperature": sampler.entry.temperature,
        "template_hash": vocabulary.template_hash,
        "tools": tools_text(question.prompt.tools),
        ANSWER.name: question.prompt.answer,
    }


def _require_completions(totals: dict[str, int]) -> dict[Metric, MetricValue]:
    if not totals["completions"]:
        raise ConfigurationProblem(
            f"None of the {totals['prompts']} prompts is short enough ({totals['promptsTooLong']} are longer than "
            "train.maxPromptLength tokens). Raise it, or bring shorter prompts."
        )
    return {}
