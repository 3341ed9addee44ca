"""Values of ConfigMaps that a manifest refers to, as the pod has them in files."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.conventions.mounts import CONFIG_FOLDER, config_map_file
from rlhf_api.resource.storage import ConfigMapKey

from .errors import ConfigurationProblem

FOLDER = Path(CONFIG_FOLDER)


def read_config_map_key(reference: ConfigMapKey, field: str) -> str:
    """`field`: where the manifest refers to it, for the message. Raises ConfigurationProblem where there is no such file."""
    try:
        return (FOLDER / config_map_file(reference)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationProblem(
            f"Key {reference.key} of ConfigMap {reference.name} ({field}) is not here as text: {error}. "
            "Only a pod in a cluster has ConfigMaps; a local run takes chatTemplate.inline, and no deepspeed.config."
        ) from error
