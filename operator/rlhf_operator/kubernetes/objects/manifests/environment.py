"""The variables of a stage's container: the contract of stages, credentials by reference, and the manifest's own."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf_api.conventions.log_names import KEEP_LOG, LogName
from rlhf_api.conventions.mounts import CONFIG_FOLDER, api_key_variable, config_map_file, hub_token_variable
from rlhf_api.conventions.quantity import parse_quantity
from rlhf_api.resource.compute import EnvVar, Pod, SecretKeySelector
from rlhf_api.resource.labeler import SecretKey
from rlhf_api.resource.model import SourceCredentials
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.storage import SecretReference, Storage
from rlhf_api.validation.walk import models
from rlhf_operator.core.actions import CreateJob, Topology
from rlhf_operator.kubernetes.api.resources import Json
from rlhf_operator.kubernetes.objects.labels import COMPLETION_INDEX

from .service import MASTER_PORT
from .volumes import HOME, SCRATCH, TMP, looked_at

_INDEX = f"metadata.annotations['{COMPLETION_INDEX}']"


def environment(run: RLHFRun, action: CreateJob) -> list[Json]:
    """A variable of the manifest replaces one of ours of the same name; the names of the contract are reserved by validation."""
    ours = [
        *_of_the_process(action),
        *(_storage(action.config.storage)),
        *(_hub_tokens(run, action)),
        *(_api_keys(run, action)),
        *(_rendezvous(action) if action.shape.topology is Topology.GANG else ()),
    ]
    own = [_of_the_manifest(variable) for variable in action.pod.env or ()]
    return list({variable["name"]: variable for variable in [*ours, *own]}.values())


def _of_the_process(action: CreateJob) -> Iterator[Json]:
    """A user without an entry in /etc/passwd has no name and no home but these."""
    yield _value("HOME", HOME)
    yield _value("USER", "rlhf")
    yield _value("TMPDIR", TMP)
    yield _value("RLHF_SCRATCH", SCRATCH)
    yield _value(KEEP_LOG, str(LogName(action.stage, action.iteration or 0, action.attempt)))
    yield _value("PYTHONUNBUFFERED", "1")
    threads = _threads(action.pod, action.config.execution.processes_per_node)
    if threads is not None:
        yield _value("OMP_NUM_THREADS", str(threads))


def _storage(storage: Storage) -> Iterator[Json]:
    secret = storage.credentials.secret_ref if storage.credentials is not None else None
    if secret is not None:
        yield _secret("AWS_ACCESS_KEY_ID", secret)
        yield _secret("AWS_SECRET_ACCESS_KEY", secret)
        yield _secret("AWS_SESSION_TOKEN", secret, optional=True)
    if storage.ca_bundle is not None:
        yield _value("AWS_CA_BUNDLE", str(CONFIG_FOLDER / config_map_file(storage.ca_bundle)))


def _hub_tokens(run: RLHFRun, action: CreateJob) -> Iterator[Json]:
    """Of the sources that the stage reads."""
    credentials = (found for _, found in models(looked_at(run, action), ()) if isinstance(found, SourceCredentials))
    secrets = {found.secret_ref.name: found.secret_ref for found in credentials}
    for _, secret in sorted(secrets.items()):
        yield _secret(hub_token_variable(secret), secret, key="HF_TOKEN")


def _api_keys(run: RLHFRun, action: CreateJob) -> Iterator[Json]:
    """Of the endpoints that the stage asks."""
    places = (looked_at(run, action), action.config.execution)
    secrets = {(found.name, found.key): found for _, found in models(places, ()) if isinstance(found, SecretKey)}
    for _, secret in sorted(secrets.items()):
        yield _secret(api_key_variable(secret), secret, key=secret.key)


def _rendezvous(action: CreateJob) -> Iterator[Json]:
    yield _value("PET_NNODES", str(action.shape.completions))
    yield _value("PET_NPROC_PER_NODE", str(action.config.execution.processes_per_node))
    yield {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    yield _value("PET_MASTER_ADDR", f"{action.name}-0.{action.name}")
    yield _value("PET_MASTER_PORT", str(MASTER_PORT))


def _threads(pod: Pod, processes: int) -> int | None:
    """Cores of the container ÷ ranks: the process itself only sees the node's cores."""
    if pod.resources is None:
        return None
    cores = pod.resources.limits.get("cpu", pod.resources.requests.get("cpu"))
    return None if cores is None else max(1, int(parse_quantity(cores)) // processes)


def _of_the_manifest(variable: EnvVar) -> Json:
    source = variable.value_from
    return (
        _value(variable.name, variable.value or "")
        if source is None
        else _secret(variable.name, source.secret_key_ref, key=source.secret_key_ref.key)
    )


def _value(name: str, value: str) -> Json:
    return {"name": name, "value": value}


def _secret(
    name: str, secret: SecretReference | SecretKey | SecretKeySelector, *, key: str | None = None, optional: bool = False
) -> Json:
    reference: Json = {"name": secret.name, "key": key or name} | ({"optional": True} if optional else {})
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
