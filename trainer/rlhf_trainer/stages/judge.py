"""judge: a Bradley-Terry or pairwise model that evaluates and rewards nothing, trained as stage reward trains its own."""

from __future__ import annotations

from rlhf_api.stage import JudgeWork, StageResult
from rlhf_trainer.runtime.context import StageContext, work_of

from .reward import train_labeler


def run(context: StageContext) -> StageResult:
    return train_labeler(context, work_of(context, JudgeWork))
