"""Where a stage finds what its pod brings: agreed between the operator, which mounts it, and the stages, which read it."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from rlhf_api.resource.labeler import SecretKey
from rlhf_api.resource.storage import ConfigMapKey, SecretReference

#: The stage's own folder: stage.yaml, and below it what the manifest refers to.
CONFIG_FOLDER = PurePosixPath("/etc/rlhf")
CONFIG_FILE = "stage.yaml"


def config_map_file(reference: ConfigMapKey) -> PurePosixPath:
    """The value of a key, as a file, relative to CONFIG_FOLDER."""
    return PurePosixPath("config-maps") / reference.name / reference.key


def hub_token_variable(secret: SecretReference) -> str:
    """The variable with a Secret's HF_TOKEN: models and data sets of one stage may each have a token of their own."""
    return f"RLHF_HF_TOKEN_{hashlib.sha256(secret.name.encode()).hexdigest()[:12].upper()}"


def api_key_variable(secret: SecretKey) -> str:
    """The variable with one key of a Secret: reward and judge of one stage may each ask an endpoint of their own."""
    return f"RLHF_API_KEY_{hashlib.sha256(f'{secret.name}/{secret.key}'.encode()).hexdigest()[:12].upper()}"
