"""The judge does not descend from the training reward."""

from __future__ import annotations

from pathlib import Path

import yaml

from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.storage import Storage
from rlhf_operator.core.chain.references import labeler_model
from rlhf_trainer.data import sources
from rlhf_trainer.runtime.errors import ConfigurationProblem


def independent_judge(spec: RLHFRunSpec, scratch: Path, storage: Storage, warnings: list[str]) -> None:
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
