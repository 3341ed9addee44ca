"""Rewards and judges can be had, and their heads are trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain as chained
from pathlib import Path

from rlhf_api.resource.labeler import Labeler, PreferenceTraining
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_operator.core.chain.references import REWARD
from rlhf_trainer.data import sources
from rlhf_trainer.data.prompts import PromptSets
from rlhf_trainer.labelers.gated.format import Gate
from rlhf_trainer.models import pair_format
from rlhf_trainer.models.chat import Chat, Draft
from rlhf_trainer.models.questions import listed
from rlhf_trainer.models.vocabulary import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .configuration import read_config
from .models import policy_vocabulary
from .weights import require_architecture, require_gated, require_head, require_ids_within

_ANSWER = {"role": "assistant", "content": "Yes."}


def labeler(spec: Labeler, prompts: Callable[[], PromptSets], scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """A reward model has a trained head, a template, and a pad token of its own; of rules see rules.py."""
    if spec.pairwise is not None and spec.pairwise.model is not None:
        _pairwise(spec.pairwise.model, prompts, scratch, storage)
    if spec.multi_objective is not None:
        _multi_objective(spec.multi_objective.model, prompts, scratch, storage, warnings)
    model = spec.bradley_terry.model if spec.bradley_terry is not None else None
    if model is None:
        return
    folder = sources.fetch_without_weights(model, scratch, storage)
    require_architecture(folder, model, "ForSequenceClassification")
    require_head(folder, model)
    vocabulary = _scoring_vocabulary(folder, model, warnings)
    require_readable(model, vocabulary.chat, prompts)


def require_readable(
    model: ModelRef, chat: Chat, prompts: Callable[[], PromptSets], also: Callable[[Draft], object] | None = None
) -> None:
    """What the policy is asked, and answers, can be rendered under the labeler's own template, and is what it `also` must be.

    Raises ConfigurationProblem.
    """
    sets = prompts()
    for prompt in chained(*sets.training, sets.validation, sets.test):
        try:
            draft = chat.exchange(prompt.messages, _ANSWER, prompt.tools)
            chat.require_readable(draft.written)
            if also is not None:
                also(draft)
            if prompt.tools is not None and (lost := chat.tools_left_out([*prompt.messages, _ANSWER], prompt.tools)):
                raise ConfigurationProblem(
                    f"its chat template leaves out {listed(lost)} of the tools. Take a reward model whose template writes them, or "
                    "write such a template into its tokenizer."
                )
        except ConfigurationProblem as problem:
            raise ConfigurationProblem(f"{prompt.where}, as {model.uri} reads it to score an answer: {problem}") from problem


def _multi_objective(
    model: ModelRef, prompts: Callable[[], PromptSets], scratch: Path, storage: Storage, warnings: list[str]
) -> None:
    """Its gate finds the header of an answer in every prompt, as the model's own template and tokenizer have it."""
    folder = sources.fetch_without_weights(model, scratch, storage)
    require_gated(folder, model)
    vocabulary = _scoring_vocabulary(folder, model, warnings)
    gate, chat = Gate(vocabulary.tokenizer, model.uri), vocabulary.chat
    require_readable(model, chat, prompts, also=lambda draft: gate.place(*chat.sides(draft)))
    gate.require_before_any_answer(chat, model.uri)


def _scoring_vocabulary(folder: Path, model: ModelRef, warnings: list[str]) -> Vocabulary:
    vocabulary = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code, classifier=True)
    tokenizer = vocabulary.tokenizer
    require_ids_within(folder, model, tokenizer)
    _bos_and_eos(model, vocabulary, warnings)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        warnings.append(
            f"{model.uri} pads with its EOS token. We never pad, so its scores are right here; other tools may read the wrong "
            "token."
        )
    return vocabulary


def _pairwise(model: ModelRef, prompts: Callable[[], PromptSets], scratch: Path, storage: Storage) -> None:
    """A preference model is a language model that has tokens for its answers, and can be asked about every prompt."""
    folder = sources.fetch_without_weights(model, scratch, storage)
    require_architecture(folder, model, "ForCausalLM")
    vocabulary = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code)
    require_ids_within(folder, model, vocabulary.tokenizer)
    pair_format.answer_ids(vocabulary.tokenizer)
    require_comparable(model, vocabulary.chat, prompts)


def require_comparable(model: ModelRef, chat: Chat, prompts: Callable[[], PromptSets]) -> None:
    """Every prompt can be asked about in the format of pairwise models. Raises ConfigurationProblem."""
    sets = prompts()
    for prompt in chained(*sets.training, sets.validation, sets.test):
        try:
            chat.asked([pair_format.question(prompt.messages, prompt.tools, "Yes.", "No.")])
        except ConfigurationProblem as problem:
            raise ConfigurationProblem(f"{prompt.where}, as {model.uri} reads it to compare answers: {problem}") from problem


def pairwise_base(training: PreferenceTraining, spec: RLHFRunSpec, scratch: Path, storage: Storage) -> Vocabulary:
    """Of a preference model that is trained: a language model with a token for each answer and positions for the questions.

    Its template is told no day of the policy's: as a labeler it is loaded without one, and must read what it was trained on.
    """
    base = training.base
    model = base or spec.policy.model
    folder = sources.fetch_without_weights(model, scratch, storage)
    require_architecture(folder, model, "ForCausalLM")
    if base is None:
        vocabulary = policy_vocabulary(without_date(spec), scratch, storage)
    else:
        vocabulary = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code)
    require_ids_within(folder, model, vocabulary.tokenizer)
    pair_format.answer_ids(vocabulary.tokenizer)
    vocabulary.chat.prompt([pair_format.question([{"role": "user", "content": "Hello"}], None, "Yes.", "No.")])
    limit = read_config(folder, model).get("max_position_embeddings")
    if isinstance(limit, int) and training.max_length > limit:
        raise ConfigurationProblem(
            f"{model.uri} has {limit} positions, and the maxLength of the preference model that is trained from it is "
            f"{training.max_length}. Lower it: longer questions are left out, and counted."
        )
    return vocabulary


def without_date(spec: RLHFRunSpec) -> RLHFRunSpec:
    """As a labeler that the run trains reads the policy's template."""
    template = spec.policy.chat_template
    undated = None if template is None else template.undated
    return spec.model_copy(update={"policy": spec.policy.model_copy(update={"chat_template": undated})})


def questions(spec: RLHFRunSpec, prompts: Callable[[], PromptSets], counts: dict[str, int], warnings: list[str]) -> None:
    """How much people are asked: whoever has to find them wants to know it before anything is sampled.

    Questions of the whole run go into `counts`, and words of them into `warnings`. They are as many as there can be:
    nobody is asked about responses that are equal.
    """
    human = spec.reward.human
    if human is None:
        return
    asked = [len(training) * human.pairs_per_prompt for training in prompts().training]
    counts[f"{REWARD}.questions"] = sum(asked)
    counts[f"{REWARD}.answers"] = sum(asked) * human.annotators_per_pair
    most = max(asked, default=0)
    each = "" if human.annotators_per_pair == 1 else f", each of {human.annotators_per_pair} people"
    warnings.append(
        f"{REWARD}: this run asks people up to {most} questions an iteration{each}, {sum(asked)} in all, and waits for their "
        "answers in each."
    )


def reward_base(base: ModelRef, scratch: Path, storage: Storage) -> Vocabulary:
    """A reward model's own base: its trunk is kept, so it may have any head; its template is the reward model's."""
    folder = sources.fetch_without_weights(base, scratch, storage)
    require_architecture(folder, base, "ForCausalLM", "ForSequenceClassification")
    vocabulary = load_vocabulary(folder, None, [], trust_remote_code=base.trust_remote_code, classifier=True)
    require_ids_within(folder, base, vocabulary.tokenizer)
    vocabulary.chat.prompt([{"role": "user", "content": "Hello"}])
    return vocabulary


def _bos_and_eos(model: ModelRef, vocabulary: Vocabulary, warnings: list[str]) -> None:
    if bos := vocabulary.unwritten_bos:
        warnings.append(
            f"The chat template of {model.uri} writes no {bos!r}, and its tokenizer adds one: it is added once in front of what is "
            "scored, as a text-classification pipeline does. If the model was trained without it, say so in its tokenizer "
            "(add_bos_token: false)."
        )
    if eos := vocabulary.unwritten_eos:
        warnings.append(
            f"The chat template of {model.uri} does not end with {eos!r}, and its tokenizer adds one: it is added behind what is "
            "scored, as a text-classification pipeline does, and the score is read there. If the model was trained without it, "
            "take it out of the post_processor of its tokenizer.json."
        )
