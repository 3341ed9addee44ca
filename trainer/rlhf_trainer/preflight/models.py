"""The checks of preflight, a function each. They raise ConfigurationProblem, and put what is only doubtful into `warnings`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import yaml

from rlhf_api.data import DataSource
from rlhf_api.labeler import Labeler
from rlhf_api.model import ModelRef
from rlhf_api.run import RLHFRunSpec
from rlhf_api.storage import Storage
from rlhf_operator.core.chain.references import labeler_model
from rlhf_trainer.data import prompts as prompt_sets
from rlhf_trainer.data import sources
from rlhf_trainer.labelers.rule import RuleLabeler
from rlhf_trainer.models import chat
from rlhf_trainer.models.loading import Vocabulary, load_vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem

LOW_DISK = 5 * 2**30
SHM_PER_RANK = 64 * 2**20


def machine(scratch: Path, ranks: int) -> list[str]:
    """Warnings on disk and shared memory."""
    found = []
    free = shutil.disk_usage(scratch).free
    if free < LOW_DISK:
        found.append(f"Only {free / 2**30:.1f} GiB are free on {scratch}; models and checkpoints pass through it.")
    if Path("/dev/shm").is_dir():  # noqa: S108 (its size is what we look at)
        shm = shutil.disk_usage("/dev/shm").total  # noqa: S108
        if shm < SHM_PER_RANK * ranks:
            found.append(f"/dev/shm has {shm / 2**20:.0f} MiB for {ranks} ranks; set pod.shmSize.")  # noqa: S108
    return found


def policy(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    """Tokenizer, template, end of turn, BOS."""
    folder = sources.model_folder(spec.policy.model, scratch, storage)
    _require_architecture(folder, spec.policy.model, "ForCausalLM")
    chat.encode_prompt(_vocabulary(spec, scratch, storage).tokenizer, [{"role": "user", "content": "Hello"}])


def positions(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    """The sampler refuses a context that the model has no positions for."""
    folder = sources.model_folder(spec.policy.model, scratch, storage)
    limit = json.loads((folder / "config.json").read_text()).get("max_position_embeddings")
    longest = spec.train.max_prompt_length + spec.sample.max_new_tokens
    if isinstance(limit, int) and longest > limit:
        raise ConfigurationProblem(
            f"{spec.policy.model.uri} has {limit} positions, and train.maxPromptLength {spec.train.max_prompt_length} + "
            f"sample.maxNewTokens {spec.sample.max_new_tokens} are more. Lower one of them."
        )


def reference(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> None:
    """A reference of its own reads the policy's ids: it must have the policy's vocabulary."""
    if spec.reference.model is None:
        return
    folder = sources.model_folder(spec.reference.model, scratch, storage)
    _require_architecture(folder, spec.reference.model, "ForCausalLM")
    own, policy = (
        load_vocabulary(place, spec.policy.chat_template, [], trust_remote_code=model.trust_remote_code).tokenizer.get_vocab()
        for place, model in (
            (folder, spec.reference.model),
            (sources.model_folder(spec.policy.model, scratch, storage), spec.policy.model),
        )
    )
    if own != policy:
        raise ConfigurationProblem(
            f"reference.model {spec.reference.model.uri} has another vocabulary than policy.model {spec.policy.model.uri}: it "
            "would score other tokens. Name a model with the same tokenizer."
        )


def labeler(spec: Labeler, scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """A rule can be imported; a reward model has a trained head, a template, and a pad token of its own."""
    if spec.rule is not None:
        RuleLabeler.load(spec.rule.entry_point)
    model = spec.bradley_terry.model if spec.bradley_terry is not None else None
    if model is None:
        return
    folder = sources.model_folder(model, scratch, storage)
    _require_architecture(folder, model, "ForSequenceClassification")
    _require_head(folder, model)
    tokenizer = load_vocabulary(folder, None, [], trust_remote_code=model.trust_remote_code).tokenizer
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        warnings.append(
            f"{model.uri} pads with its EOS token. We never pad, so its scores are right here; other tools may read the wrong "
            "token."
        )


def reward_base(base: ModelRef, scratch: Path, storage: Storage) -> None:
    """A reward model's own base: its trunk is kept, so it may have any head; its template is the reward model's."""
    folder = sources.model_folder(base, scratch, storage)
    _require_architecture(folder, base, "ForCausalLM", "ForSequenceClassification")
    tokenizer = load_vocabulary(folder, None, [], trust_remote_code=base.trust_remote_code).tokenizer
    chat.encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])


def prompts(spec: RLHFRunSpec, scratch: Path, storage: Storage, counts: dict[str, int], warnings: list[str]) -> None:
    """Enough prompts for T iterations, and for validation, that are short enough. Fails only where an iteration would have none."""
    sets = prompt_sets.load_prompt_sets(spec.prompts, spec.iterations, scratch, storage)
    for number, part in enumerate(sets.training, start=1):
        counts[f"prompts/{number}"] = len(part)
        if not part:
            raise ConfigurationProblem(
                f"Nothing is left of prompts.source for iteration {number} ({sets.counts['rows']} rows, "
                f"{sets.counts['duplicates']} duplicates, {sets.counts['validation']} held out for validation, "
                f"{sets.counts['test']} for test). Bring more prompts, or lower prompts.perIteration, the hold-outs or iterations."
            )
        if len(part) < spec.prompts.per_iteration:
            warnings.append(
                f"Iteration {number} has {len(part)} prompts; prompts.perIteration asks for {spec.prompts.per_iteration}."
            )
    if not sets.validation:
        raise ConfigurationProblem(
            "prompts.validation is empty: without it no iterate can be selected and no gate can look at anything."
        )
    counts["validation"], counts["test"] = len(sets.validation), len(sets.test)
    _prompt_lengths(spec, sets, _vocabulary(spec, scratch, storage), counts, warnings)


def _prompt_lengths(
    spec: RLHFRunSpec, sets: prompt_sets.PromptSets, vocabulary: Vocabulary, counts: dict[str, int], warnings: list[str]
) -> None:
    """Longer ones are left out by sample and evaluate, which count them."""
    limit = spec.train.max_prompt_length
    named = [("validation", sets.validation)]
    named += [(f"iteration {number}", part) for number, part in enumerate(sets.training, start=1)]
    too_long = 0
    for name, part in named:
        longer = sum(len(chat.encode_prompt(vocabulary.tokenizer, prompt.messages)) > limit for prompt in part)
        if longer == len(part):
            raise ConfigurationProblem(
                f"All {longer} prompts of {name} are longer than train.maxPromptLength, {limit} tokens with the chat template. "
                "Raise it, and train.maxLength with it, or bring shorter prompts."
            )
        too_long += longer
    if too_long:
        counts["promptsTooLong"] = too_long
        warnings.append(
            f"{too_long} of {sum(len(part) for _, part in named)} prompts are longer than train.maxPromptLength, {limit} tokens "
            "with the chat template: they are left out."
        )


def demonstrations(source: DataSource, scratch: Path, storage: Storage) -> None:
    """They are there and have their column."""
    row = sources.read_rows(source, scratch, storage)[0]
    column = source.column or "messages"
    if column not in row:
        raise ConfigurationProblem(f"{source.uri} has no column {column!r} (it has {', '.join(sorted(row))}). Set sft.data.column.")
    prompt_sets.as_messages(row[column], f"{source.uri}: row 1, column {column}")


def preferences(source: DataSource, scratch: Path, storage: Storage) -> None:
    """They are there and have their columns."""
    row = sources.read_rows(source, scratch, storage)[0]
    if not {"chosen", "rejected"} <= set(row):
        raise ConfigurationProblem(f"{source.uri} needs columns chosen and rejected (it has {', '.join(sorted(row))}).")


def lengths(spec: RLHFRunSpec) -> list[str]:
    total = spec.train.max_prompt_length + spec.sample.max_new_tokens
    if total <= spec.train.max_length:
        return []
    return [
        (
            f"Responses can be longer than training reads: maxPromptLength {spec.train.max_prompt_length} "
            f"+ maxNewTokens {spec.sample.max_new_tokens} > maxLength {spec.train.max_length}. "
            f"The reward scores text that DPO will see cut ({spec.train.overlong})."
        )
    ]


def lineage(spec: RLHFRunSpec, scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """A judge that is, or descends from, the training reward measures how well the reward was gamed."""
    if spec.evaluate.allow_training_reward:
        return
    reward, judge = labeler_model(spec.reward, "reward"), labeler_model(spec.evaluate.judge, "evaluate.judge")
    if reward is None or judge is None:
        return
    ancestors = _ancestors(judge[1], scratch, storage)
    if _name(reward[1].uri) in ancestors:
        raise ConfigurationProblem(
            f"The judge {judge[1].uri} descends from the training reward {reward[1].uri}: it is no independent judge. Name "
            "another, or set evaluate.allowTrainingReward: true."
        )
    shared = (ancestors - {_name(judge[1].uri)}) & _ancestors(reward[1], scratch, storage)
    if shared:
        warnings.append(f"Judge and training reward share the backbone {', '.join(sorted(shared))}; their errors may agree.")
    if len(ancestors) == 1:
        warnings.append(
            f"Where the judge {judge[1].uri} comes from is unknown: it declares no base, nor does its card. Set model.base."
        )


def _vocabulary(spec: RLHFRunSpec, scratch: Path, storage: Storage) -> Vocabulary:
    folder = sources.model_folder(spec.policy.model, scratch, storage)
    return load_vocabulary(
        folder, spec.policy.chat_template, spec.policy.stop_token_ids, trust_remote_code=spec.policy.model.trust_remote_code
    )


def _ancestors(model: ModelRef, scratch: Path, storage: Storage) -> set[str]:
    """The model and what it declares to come from, by name without scheme."""
    names = {_name(model.uri)}
    if model.base is not None:
        return names | {_name(model.base)}
    return names | {_name(base) for base in _bases_of_card(sources.model_folder(model, scratch, storage) / "README.md")}


def _bases_of_card(card: Path) -> list[str]:
    """base_model of a model card's front matter: one, or a list."""
    text = card.read_text(errors="replace") if card.is_file() else ""
    if not text.startswith("---"):
        return []
    try:
        matter = yaml.safe_load(text.split("---")[1])
    except yaml.YAMLError:
        return []
    base = matter.get("base_model") if isinstance(matter, dict) else None
    return [name for name in (base if isinstance(base, list) else [base]) if isinstance(name, str)]


def _name(uri: str) -> str:
    return uri.removeprefix("hf://").rstrip("/")


def _require_architecture(folder: Path, model: ModelRef, *suffixes: str) -> None:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigurationProblem(f"{model.uri}: config.json cannot be read: {error}") from error
    architectures = config.get("architectures") or []
    if not any(name.endswith(suffixes) for name in architectures):
        raise ConfigurationProblem(
            f"{model.uri} is {', '.join(architectures) or 'of no known architecture'}; a …{' or …'.join(suffixes)} is "
            "needed here, for the missing head would be random."
        )
    if not any(os.scandir(folder)) or not list(folder.glob("*.safetensors")):
        raise ConfigurationProblem(f"{model.uri} has no safetensors weights. Pickled weights are never loaded; convert them.")


def _require_head(folder: Path, model: ModelRef) -> None:
    """The weights behind the trunk are in the files; transformers makes up those that are not, and only warns."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        empty = AutoModelForSequenceClassification.from_config(config, trust_remote_code=model.trust_remote_code)
    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(str(file), "pt") as weights:
            stored |= set(weights.keys())
    head = {name for name, _ in empty.named_parameters() if not name.startswith(f"{empty.base_model_prefix}.")}
    if missing := sorted(head - stored):
        raise ConfigurationProblem(
            f"{model.uri} has no weights for its head ({', '.join(missing)}): it would be random. Name a trained reward model."
        )
