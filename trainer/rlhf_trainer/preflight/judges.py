"""A judge that is asked: a served one answers and costs no more than it may, one that a stage reads can read every question."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from rlhf_api.resource.evaluation import Against
from rlhf_api.resource.labeler import Labeler, LlmJudge
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_api.words import StageName
from rlhf_operator.core.chain.references import JUDGE, REWARD
from rlhf_trainer.data import sources
from rlhf_trainer.data.prompts import PromptSets
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.judge.asking import ANSWER_TOKENS, Asked
from rlhf_trainer.labelers.judge.endpoint import Endpoint, Patience
from rlhf_trainer.labelers.judge.own_model import penalties_of, positions_of, question_ids
from rlhf_trainer.labelers.judge.question import REHEARSED, question, template_of, verdict
from rlhf_trainer.models.vocabulary import load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem, Transient

from .sampler import judging, without_gpus
from .weights import require_architecture, require_ids_within

_QUOTED = 200
#: A person waits for it.
_RETRIES = 2


def answers(labeler: Labeler, path: str, seed: int, warnings: list[str], patience: Patience | None = None) -> None:
    """One request. Raises ConfigurationProblem, for an endpoint that is away too: a manifest may name one that there is not."""
    judge = labeler.judge
    if judge is None or judge.endpoint is None:
        return
    # It counts for no stage.
    update = {"max_requests": None, "retries": min(judge.endpoint.retries, _RETRIES)}
    endpoint = Endpoint(judge.endpoint.model_copy(update=update), seed, patience or Patience())
    asked = Asked(question(template_of(judge.prompt), *REHEARSED), "a pair of preflight's own", path)
    try:
        (answer,) = endpoint.ask([asked])
    except Transient as error:
        raise ConfigurationProblem(f"{path}.judge.endpoint: {error} Start it, or correct baseUrl.") from None
    if answer.refused or answer.cut or verdict(answer.text) is None:
        why = "refuses to answer" if answer.refused else "was cut" if answer.cut else "has no verdict"
        raise ConfigurationProblem(
            f"{path}.judge: what {endpoint.name} answers about two harmless responses {why}: {answer.text[:_QUOTED]!r}. It must "
            "end with [[A]], [[B]] or [[C]]: name a model that follows instructions, or correct judge.prompt."
        )
    warnings.append(
        f"{path}: nothing pins the judge {endpoint.name}. Whoever serves it may change it, and the same responses then get other "
        "verdicts; what is sealed in the store was judged by what was served at the time."
    )


def own_model(
    spec: RLHFRunSpec,
    path: str,
    prompts: Callable[[], PromptSets],
    scratch: Path,
    storage: Storage,
    warnings: list[str],
    *,
    allow_cpu: bool,
) -> None:
    """A language model that vLLM reads, whose template can ask about every prompt, and that has room for prompt and answers.

    Raises ConfigurationProblem.
    """
    judge = (spec.reward if path == REWARD else spec.evaluate.judge).judge
    if judge is None or judge.model is None:
        return
    model = judge.model
    folder = sources.fetch_without_weights(model, scratch, storage)
    require_architecture(folder, model, "ForCausalLM")
    for stage in (StageName.LABEL, StageName.EVALUATE) if path == REWARD else (StageName.EVALUATE,):
        judging(model, stage, scratch, storage, cpu=without_gpus(spec, stage, allow_cpu=allow_cpu))
    vocabulary = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code)
    require_ids_within(folder, model, vocabulary.tokenizer)
    positions, longest, sets = positions_of(folder), 0, prompts()
    for prompt in chain(*sets.training, sets.validation, sets.test):
        both = (Response(prompt.messages, "Yes.", tools=prompt.tools), Response(prompt.messages, "No.", tools=prompt.tools))
        try:
            longest = max(longest, len(question_ids(vocabulary, question(template_of(judge.prompt), *both))))
        except ConfigurationProblem as problem:
            raise ConfigurationProblem(f"{prompt.where}, as {model.uri} reads it to compare answers: {problem}") from problem
        if positions is not None and longest + ANSWER_TOKENS > positions:
            raise ConfigurationProblem(
                f"{prompt.where}: {model.uri} has {positions} positions, and of a question about two responses of a word each "
                f"it needs {longest}, and {ANSWER_TOKENS} for its answer. Name one with a longer context, or bring shorter prompts."
            )
    responses = 2 * spec.sample.max_new_tokens
    if positions is not None and longest + responses + ANSWER_TOKENS > positions:
        warnings.append(
            f"{path}: {model.uri} has {positions} positions. Two responses of sample.maxNewTokens {spec.sample.max_new_tokens}, "
            f"the longest prompt with its instructions ({longest}) and {ANSWER_TOKENS} for the answer are about "
            f"{longest + responses + ANSWER_TOKENS} tokens: a pair that does not fit ends its stage."
        )
    if penalties := penalties_of(folder):
        told = ", ".join(f"{name} {value}" for name, value in penalties.items())
        warnings.append(
            f"{path}: generation_config.json of {model.uri} has {told}, which a server applies to greedy answers, too. The "
            "stage does not: its answers are the model's own."
        )


def cost(spec: RLHFRunSpec, prompts: Callable[[], PromptSets], counts: dict[str, int], warnings: list[str]) -> None:
    """Requests of the whole run go into `counts`, and words of them into `warnings`.

    Raises ConfigurationProblem where a stage needs more than it may. They are as many as there can be: nobody is asked about equal
    responses, or about incomplete prompts; what is repeated comes on top.
    """
    reward, judge = spec.reward.judge, spec.evaluate.judge.judge
    if reward is None and judge is None:
        return
    sets = prompts()
    if reward is not None:
        orders = spec.sample.completions_per_prompt * (spec.sample.completions_per_prompt - 1)
        labels = [len(training) * orders for training in sets.training]
        evaluated = 2 * len(sets.validation)
        counts[f"{REWARD}.judgeRequests"] = sum(labels) + spec.iterations * evaluated
        told = f"{orders} a prompt in label, {max(labels, default=0)} an iteration; {evaluated} an evaluation"
        _say(REWARD, reward, counts[f"{REWARD}.judgeRequests"], told, max([*labels, evaluated]), warnings)
    if judge is not None:
        sampling = spec.evaluate.sampling
        decodings = 1 if (sampling.temperature, sampling.top_p) == (1.0, 1.0) else 2
        first = 2 * (decodings * len(sets.validation) + 2 * len(sets.test))
        again = 2 * len(sets.validation) if Against.PREVIOUS in spec.evaluate.against else 0
        # The predecessor of pi_1 is pi_0, whom it was compared with already.
        counts[f"{JUDGE}.judgeRequests"] = spec.iterations * first + (spec.iterations - 1) * again
        most = first + again if spec.iterations > 1 else first
        _say(JUDGE, judge, counts[f"{JUDGE}.judgeRequests"], f"{most} an evaluation", most, warnings)


def _say(path: str, judge: LlmJudge, total: int, told: str, most: int, warnings: list[str]) -> None:
    endpoint = judge.endpoint
    if endpoint is None:
        return
    bound = endpoint.max_requests
    if bound is not None and most > bound:
        raise ConfigurationProblem(
            f"{path}.judge.endpoint.maxRequests is {bound}, and one stage asks {endpoint.model} up to {most} times ({told}). Raise "
            "it, or lower sample.completionsPerPrompt, prompts.perIteration or prompts.validation."
        )
    allowed = "no bound is set" if bound is None else f"maxRequests allows {bound} a stage"
    warnings.append(f"{path}: this run asks {endpoint.model} up to {total} times ({told}); {allowed}. What fails is asked again.")
