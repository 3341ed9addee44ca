"""Where a model's files are: of an artifact in the store, of a hub, a bucket or a folder."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.stage import ModelInput
from rlhf_trainer.data import sources
from rlhf_trainer.runtime.context import StageContext
from rlhf_trainer.runtime.narrow import present

#: In a bf16 policy's artifact: the fp32 weights behind it, for the next iteration's warm start.
MASTER_FILE = "master/model.safetensors"


def model_folder(context: StageContext, model: ModelInput) -> Path:
    """A folder with the model's files, verified where it is an artifact, from its hub or store otherwise.

    fp32 masters stay where they are: they are twice as large as all the rest, and one stage may want them.
    """
    inputs = context.scratch / "inputs"
    if model.artifact is not None:
        return context.artifact(model.artifact).cached(inputs, without=MASTER_FILE)
    return sources.fetch_model(present(model.source, "the model's source"), inputs, context.config.storage)


def trusts(model: ModelInput) -> bool:
    """Whether the manifest lets code that comes with the model run."""
    return model.source is not None and model.source.trust_remote_code
