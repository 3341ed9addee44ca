"""Values of ConfigMaps that a manifest refers to, as the pod has them in files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rlhf_api.conventions.mounts import CONFIG_FOLDER, config_map_file
from rlhf_api.resource.storage import ConfigMapKey

from .errors import ConfigurationProblem

FOLDER = Path(CONFIG_FOLDER)


def read_config_map_key(reference: ConfigMapKey, field: str, revision: str | None = None) -> str:
    """`field`: where the manifest refers to it, for the message. `revision`: of the text that is meant.

    Raises ConfigurationProblem where there is no such file, or it holds another text.
    """
    name = f"Key {reference.key} of ConfigMap {reference.name} ({field})"
    try:
        text = (FOLDER / config_map_file(reference)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationProblem(
            f"{name} is not here as text: {error}. "
            "Only a pod in a cluster has ConfigMaps; a local run takes chatTemplate.inline, and no deepspeed.config."
        ) from error
    if revision is not None and revision_of(text) != revision:
        raise ConfigurationProblem(
            f"{name} has changed since the run began (its revision is {revision_of(text)[:16]}, and was {revision[:16]}): what was "
            "made with it would not go with what is made now. Put the old text back, or begin another run."
        )
    return text


def revision_of(text: str) -> str:
    """SHA-256, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
