"""A judge that is served can be asked, gives verdicts, and costs no more requests than it may."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_api.resource.evaluation import Against
from rlhf_api.resource.labeler import JudgeEndpoint, Labeler
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_operator.core.chain.references import JUDGE, REWARD
from rlhf_trainer.data.prompts import PromptSets
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.judge.endpoint import Asked, Endpoint, Patience
from rlhf_trainer.labelers.judge.question import question, template_of, verdict
from rlhf_trainer.runtime.errors import ConfigurationProblem, Transient

#: Of no run, so that nothing of one leaves the cluster before it has begun.
_TURNS = [{"role": "user", "content": "What is two plus two?"}]
_PAIR = (Response(_TURNS, "Four."), Response(_TURNS, "Five."))
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
    asked = Asked(question(template_of(judge.prompt), *_PAIR), "a pair of preflight's own", path)
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


def cost(spec: RLHFRunSpec, prompts: Callable[[], PromptSets], counts: dict[str, int], warnings: list[str]) -> None:
    """Requests of the whole run go into `counts`, and words of them into `warnings`.

    Raises ConfigurationProblem where a stage needs more than it may. They are as many as there can be: nobody is asked about equal
    responses, or about incomplete prompts; what is repeated comes on top.
    """
    reward, judge = _endpoint(spec.reward), _endpoint(spec.evaluate.judge)
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


def _say(path: str, endpoint: JudgeEndpoint, total: int, told: str, most: int, warnings: list[str]) -> None:
    bound = endpoint.max_requests
    if bound is not None and most > bound:
        raise ConfigurationProblem(
            f"{path}.judge.endpoint.maxRequests is {bound}, and one stage asks {endpoint.model} up to {most} times ({told}). Raise "
            "it, or lower sample.completionsPerPrompt, prompts.perIteration or prompts.validation."
        )
    allowed = "no bound is set" if bound is None else f"maxRequests allows {bound} a stage"
    warnings.append(f"{path}: this run asks {endpoint.model} up to {total} times ({told}); {allowed}. What fails is asked again.")


def _endpoint(labeler: Labeler) -> JudgeEndpoint | None:
    return labeler.judge.endpoint if labeler.judge is not None else None
