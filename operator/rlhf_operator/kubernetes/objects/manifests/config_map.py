"""The attempt's configuration: what `python -m rlhf_trainer STAGE` reads."""

from __future__ import annotations

from typing import Any

import yaml

from rlhf_api.conventions.mounts import CONFIG_FILE
from rlhf_api.resource.run import RLHFRun
from rlhf_api.stage import ResolveWork
from rlhf_operator.core.actions import CreateConfigMap
from rlhf_operator.kubernetes.objects.labels import attempt_labels

from .metadata import child_metadata


def config_map(run: RLHFRun, action: CreateConfigMap) -> dict[str, Any]:
    config = action.config
    stage = config.work.target if isinstance(config.work, ResolveWork) else config.stage
    labels = attempt_labels(run, config.iteration, stage, config.execution.attempt, config.stage)
    text = yaml.safe_dump(config.to_wire(), sort_keys=False, allow_unicode=True, width=120)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(run, action.name, labels),
        "data": {CONFIG_FILE: text},
    }
