"""The judge must be independent of the training reward; preflight looks at the lineage on top of this."""

from __future__ import annotations

from rlhf_api.conventions.judge_prompt import PLACEHOLDERS, REQUIRED, placeholders_of
from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.labeler import JudgeEndpoint, Labeler, LabelerType, LlmJudge, PreferenceTraining
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.phrases import one_of
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC, all_of

_REWARD: Loc = (*SPEC, "reward")
_JUDGE: Loc = (*SPEC, "evaluate", "judge")


def judge_is_independent(spec: RLHFRunSpec) -> Problems:
    if spec.evaluate.allow_training_reward:
        return
    judge, reward = spec.evaluate.judge, spec.reward
    allow = "name another judge, or write allowTrainingReward: true"
    depends = ((*SPEC, "evaluate", "allowTrainingReward"),)
    if judge.rule and reward.rule and judge.rule == reward.rule:
        # An object says too much in a message; a function is named.
        member = ("rule", "entryPoint") if judge.rule.entry_point else ("rule",)
        yield Problem((*_JUDGE, *member), "the judge is the training reward", allow, depends=(*depends, (*_REWARD, *member)))
    served, rewarding = _endpoint(judge), _endpoint(reward)
    if served and rewarding and (served.base_url, served.model) == (rewarding.base_url, rewarding.model):
        places = tuple((*loc, "judge", "endpoint", name) for loc in (_REWARD, _JUDGE) for name in ("model", "baseUrl"))
        yield Problem(
            (*_JUDGE, "judge", "endpoint", "model"), "the judge is the training reward", allow, depends=(*depends, *places)
        )
    yield from _trained_is_independent(spec, allow, depends)
    for judge_loc, judge_model in _models(judge, _JUDGE):
        for reward_loc, reward_model in _models(reward, _REWARD):
            seen = (*depends, (*reward_loc, "uri"))
            if _same(judge_model.uri, reward_model.uri):
                yield Problem((*judge_loc, "uri"), "the judge is the training reward", allow, depends=seen)
            elif judge_model.base is not None and _same(judge_model.base, reward_model.uri):
                yield Problem((*judge_loc, "base"), "the judge descends from the training reward", allow, depends=seen)


def _trained_is_independent(spec: RLHFRunSpec, allow: str, depends: tuple[Loc, ...]) -> Problems:
    """Of a judge that the run trains. How it is trained makes no other model of the same base and data."""
    judge, reward = spec.evaluate.judge.training, spec.reward.training
    if judge is None:
        return
    place: Loc = (*_JUDGE, spec.evaluate.judge.trained_member, "train")
    if reward is not None and _same(_start(spec, judge), _start(spec, reward)) and _rows(judge) == _rows(reward):
        members = ((*_REWARD, spec.reward.trained_member), (*_JUDGE, spec.evaluate.judge.trained_member))
        seen = tuple((*loc, "train", name) for loc in members for name in ("base", "data"))
        wrong = "the judge is the training reward: both are trained from the same base, on the same data"
        yield Problem(
            place, wrong, "give it another base or other data, or write allowTrainingReward: true", depends=depends + seen
        )
    for loc, model in _models(spec.reward, _REWARD):
        named = [judge.base.uri, judge.base.base] if judge.base is not None else []
        if any(name is not None and _same(name, model.uri) for name in named):
            wrong = "the judge descends from the training reward"
            yield Problem((*place, "base", "uri"), wrong, allow, depends=(*depends, (*loc, "uri")))


def _start(spec: RLHFRunSpec, training: PreferenceTraining) -> str:
    """What a model is trained from; "" is a pi_0 that the run makes."""
    if training.base is not None:
        return training.base.uri
    return spec.policy.model.uri if spec.sft is None else ""


def _rows(training: PreferenceTraining) -> set[tuple[object, ...]]:
    """What is read, whatever it is called and however much of it is taken."""
    return {(source.uri, source.config, source.split, source.revision) for source in training.data}


def judge_prompts_are_whole(spec: RLHFRunSpec) -> Problems:
    """A template asks about both responses, and has no placeholder that nothing is put in the place of."""
    for loc, judge in all_of(spec, LlmJudge):
        place = (*loc, "prompt")
        named = placeholders_of(judge.prompt or "")
        known = one_of([f"{{{name}}}" for name in PLACEHOLDERS])
        for name in dict.fromkeys(named):
            if name not in PLACEHOLDERS:
                yield Problem(place, f"{{{name}}} is no placeholder", f"write {known}, or leave out the braces")
        lacking = [f"{{{name}}}" for name in REQUIRED if name not in named]
        if set(named) & set(PLACEHOLDERS) and lacking:
            yield Problem(
                place,
                f"has placeholders and no {' and no '.join(lacking)}, so that the judge would not read what it judges",
                "add it, or leave out all placeholders: it is instructions then, and the rest is built in",
            )


def gated_models_are_read_without_their_code(spec: RLHFRunSpec) -> Problems:
    """Their formula is known; a field that says that code runs which never does would be a lie (ADR 0031)."""
    for loc, labeler in ((_REWARD, spec.reward), (_JUDGE, spec.evaluate.judge)):
        if labeler.multi_objective is not None and labeler.multi_objective.model.trust_remote_code:
            yield Problem(
                (*loc, "multiObjective", "model", "trustRemoteCode"),
                "code of multi-objective models is never run: they are read without it",
                "write false, or remove it",
            )


def answers_are_named(spec: RLHFRunSpec) -> Problems:
    """A rule that compares with a reference answer needs a column of them wherever its prompts come from."""
    source: Loc = (*SPEC, "prompts", "source")
    for loc, labeler, names in ((_REWARD, spec.reward, ("validation",)), (_JUDGE, spec.evaluate.judge, ("validation", "test"))):
        if labeler.rule is None or not labeler.rule.needs_answer:
            continue
        member = "exactMatch" if labeler.rule.exact_match else "numericAnswer"
        held = [(name, part) for name in names if (part := getattr(spec.prompts, name)) is not None]
        found = {(*SPEC, "prompts", name, "source"): part.source for name, part in held if part.source is not None}
        if labeler is spec.reward or any(part.source is None for _, part in held):
            found[source] = spec.prompts.source
        for place, prompts in found.items():
            if prompts.answer_column is None:
                yield Problem(
                    (*place, "answerColumn"),
                    f"absent, and {'.'.join(map(str, loc[1:]))}.rule.{member} compares with the reference answers of its rows",
                    "name the column that holds them",
                    depends=((*loc, "rule", member),),
                )


def answers_are_not_asked(spec: RLHFRunSpec) -> Problems:
    """What stands in the column of prompts is shown to the policy; preflight looks at the columns that are read beside it."""
    for loc, source in all_of(spec, PromptSource):
        if source.answer_column is not None and source.answer_column == source.column:
            yield Problem(
                (*loc, "answerColumn"),
                "the column that holds the prompt, so that the policy would read the answer",
                "name a column of its own",
                depends=((*loc, "column"),),
            )


def pairs_are_there_to_ask_about(spec: RLHFRunSpec) -> Problems:
    """Fewer of a prompt may be asked about, where responses are equal; more never."""
    human, completions = spec.reward.human, spec.sample.completions_per_prompt
    pairs = completions * (completions - 1) // 2
    if human is not None and human.pairs_per_prompt > pairs:
        yield Problem(
            (*_REWARD, "human", "pairsPerPrompt"),
            f"more pairs than the {completions} completions of a prompt make: {pairs}",
            f"write at most {pairs}, or raise sample.completionsPerPrompt",
            depends=((*SPEC, "sample", "completionsPerPrompt"),),
        )


def annotations_answer_questions(spec: RLHFRunSpec) -> Problems:
    """Answers belong to an iteration of the run, and to a reward that asks."""
    for index, entry in enumerate(spec.annotations):
        loc: Loc = (*SPEC, "annotations", index)
        if spec.reward.type is not LabelerType.HUMAN:
            yield Problem(
                loc,
                f"answers of people, and reward is of type {spec.reward.type.value}",
                "remove it, or write type: Human",
                depends=((*_REWARD, "type"),),
            )
        elif entry.iteration > spec.iterations:
            yield Problem(
                (*loc, "iteration"),
                f"no iteration of this run: there are {spec.iterations}",
                f"write 1 to {spec.iterations}",
                depends=((*SPEC, "iterations"),),
            )


def _models(labeler: Labeler, loc: Loc) -> list[tuple[Loc, ModelRef]]:
    """The trained model of a labeler; one that is trained in the run has none yet."""
    found: list[tuple[Loc, ModelRef]] = []
    if labeler.bradley_terry and labeler.bradley_terry.model:
        found.append(((*loc, "bradleyTerry", "model"), labeler.bradley_terry.model))
    for name, member in (("pairwise", labeler.pairwise), ("multiObjective", labeler.multi_objective), ("judge", labeler.judge)):
        if member and member.model:
            found.append(((*loc, name, "model"), member.model))
    return found


def _endpoint(labeler: Labeler) -> JudgeEndpoint | None:
    return labeler.judge.endpoint if labeler.judge else None


def _same(one: str, other: str) -> bool:
    """`base` may be written as on a model card: owner/name."""
    return one.removeprefix("hf://").rstrip("/").lower() == other.removeprefix("hf://").rstrip("/").lower()
