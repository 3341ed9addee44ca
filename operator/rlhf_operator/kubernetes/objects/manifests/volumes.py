"""What is mounted where: the configuration, scratch on the node, shared memory, and the manifest's own volumes."""

from __future__ import annotations

from typing import Any

from rlhf_api.conventions.mounts import CONFIG_FILE, CONFIG_FOLDER, config_map_file
from rlhf_api.resource.compute import Pod
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.storage import ConfigMapKey
from rlhf_api.validation.walk import models
from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.kubernetes.api.resources import Json

CONFIG_PATH = str(CONFIG_FOLDER / CONFIG_FILE)
SCRATCH = "/scratch"
HOME = "/home/rlhf"
TMP = "/tmp"  # noqa: S108 - a volume of the pod's own
_SHM = "/dev/shm"  # noqa: S108
_CONFIG_VOLUME, _SCRATCH_VOLUME, _SHM_VOLUME = "rlhf-config", "rlhf-scratch", "rlhf-shm"
#: The root file system is read-only: every place that libraries write to is a folder of one volume.
_WRITABLE = {SCRATCH: "scratch", HOME: "home", TMP: "tmp"}


def volumes(run: RLHFRun, action: CreateJob) -> list[Json]:
    shm: Json = {"medium": "Memory"} | ({"sizeLimit": action.pod.shm_size} if action.pod.shm_size else {})
    return [
        {"name": _CONFIG_VOLUME, "projected": {"sources": _config_sources(run, action)}},
        {"name": _SCRATCH_VOLUME, "emptyDir": {}},
        {"name": _SHM_VOLUME, "emptyDir": shm},
        *(volume.to_wire() for volume in action.pod.volumes or ()),
    ]


def mounts(pod: Pod) -> list[Json]:
    """Where the manifest mounts a volume of its own over one of our writable folders, its own is meant."""
    own = [mount.to_wire() for mount in pod.volume_mounts or ()]
    taken = {mount["mountPath"].rstrip("/") for mount in own}
    writable = [
        {"name": _SCRATCH_VOLUME, "mountPath": path, "subPath": folder} for path, folder in _WRITABLE.items() if path not in taken
    ]
    return [
        {"name": _CONFIG_VOLUME, "mountPath": str(CONFIG_FOLDER), "readOnly": True},
        *writable,
        {"name": _SHM_VOLUME, "mountPath": _SHM},
        *own,
    ]


def _config_sources(run: RLHFRun, action: CreateJob) -> list[Json]:
    """The attempt's ConfigMap, and each key of others that its configuration refers to."""
    sources: list[Json] = [{"configMap": {"name": action.name, "items": [{"key": CONFIG_FILE, "path": CONFIG_FILE}]}}]
    for reference in _references(run, action):
        item = {"key": reference.key, "path": str(config_map_file(reference))}
        sources.append({"configMap": {"name": reference.name, "items": [item]}})
    return sources


def looked_at(run: RLHFRun, action: CreateJob) -> Any:
    """What the stage reads of models and data; preflight has the whole spec in its configuration, as JSON, and reads all of it."""
    return run.spec if action.config.stage is StageName.PREFLIGHT else action.config.work


def _references(run: RLHFRun, action: CreateJob) -> list[ConfigMapKey]:
    places = (looked_at(run, action), action.config.storage)
    found = {(ref.name, ref.key): ref for _, ref in models(places, ()) if isinstance(ref, ConfigMapKey)}
    return [found[key] for key in sorted(found)]
