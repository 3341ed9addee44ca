"""The judge does not descend from the training reward."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from rlhf_api.resource.labeler import Labeler, PreferenceTraining
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_operator.core.chain.references import JUDGE, REWARD, labeler_model
from rlhf_trainer.data import sources
from rlhf_trainer.runtime.errors import ConfigurationProblem


@dataclass(frozen=True)
class _Origin:
    """names: all that a labeler's model is known to come from, without scheme; its own, too, where it is from outside."""

    uri: str
    names: frozenset[str]
    training: PreferenceTraining | None = None
    """None: a model from outside, at `uri`; else that is what the run trains it from."""


def independent_judge(spec: RLHFRunSpec, scratch: Path, storage: Storage, warnings: list[str]) -> None:
    """A judge that is, or descends from, the training reward measures how well the reward was gamed."""
    if spec.evaluate.allow_training_reward:
        return
    reward = _origin(spec, spec.reward, REWARD, scratch, storage)
    judge = _origin(spec, spec.evaluate.judge, JUDGE, scratch, storage)
    if reward is None or judge is None:
        return
    if reward.training is None and _name(reward.uri) in judge.names:
        told = f"judge {judge.uri}" if judge.training is None else f"judge that the run trains from {judge.uri}"
        raise ConfigurationProblem(
            f"The {told} descends from the training reward {reward.uri}: it is no independent judge. Name "
            "another, or set evaluate.allowTrainingReward: true."
        )
    # A model from outside that the reward was made from is told of where the run does that.
    outside = {_name(judge.uri)} if judge.training is None and reward.training is None else set()
    shared = (judge.names - outside) & reward.names
    if shared:
        warnings.append(f"Judge and training reward share the backbone {', '.join(sorted(shared))}; their errors may agree.")
    if judge.training is None and len(judge.names) == 1:
        warnings.append(
            f"Where the judge {judge.uri} comes from is unknown: it declares no base, nor does its card. Set model.base."
        )
    if reward.training is not None and judge.training is not None:
        data = {source.uri for source in reward.training.data} & {source.uri for source in judge.training.data}
        if data:
            warnings.append(f"Judge and training reward are trained on the same {', '.join(sorted(data))}; their errors may agree.")


def _origin(spec: RLHFRunSpec, labeler: Labeler, path: str, scratch: Path, storage: Storage) -> _Origin | None:
    """None of what has no model that could be looked at."""
    if labeler.training is not None:
        base = labeler.training.base or spec.policy.model
        return _Origin(base.uri, frozenset(_ancestors(base, scratch, storage)), labeler.training)
    found = labeler_model(labeler, path)
    return None if found is None else _Origin(found[1].uri, frozenset(_ancestors(found[1], scratch, storage)))


def _ancestors(model: ModelRef, scratch: Path, storage: Storage) -> set[str]:
    """The model and what it declares to come from, by name without scheme."""
    names = {_name(model.uri)}
    if model.base is not None:
        return names | {_name(model.base)}
    return names | {_name(base) for base in _bases_of_card(sources.fetch_without_weights(model, scratch, storage) / "README.md")}


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
