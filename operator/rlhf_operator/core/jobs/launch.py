"""The actions that start an attempt."""

from __future__ import annotations

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.status import StageStatus
from rlhf_api.stage import StageConfig
from rlhf_api.words import StageName
from rlhf_operator.core.actions import Action, CreateConfigMap, CreateJob, CreateNetworkPolicy, CreateService, Shape, Topology

from .execution import SHARDED, parallelism_of, queue_of, shards_of
from .names import child_name, run_child_name
from .pods import pod_of


def launch(spec: RLHFRunSpec, config: StageConfig, target: StageName, stage: StageStatus, image: str | None) -> tuple[Action, ...]:
    """In the order in which they must succeed: the Job last. `config` is the attempt's; it is booked on stage `target`."""
    name = child_name(config.run.name, config.iteration, target, stage.attempt)
    shape = shape_of(spec, config, stage)
    job = CreateJob(
        name=name,
        iteration=config.iteration,
        stage=target,
        attempt=stage.attempt,
        resolving=stage.resolving,
        config=config,
        shape=shape,
        pod=pod_of(spec, config.stage),
        queue=queue_of(spec, config.stage),
        image=image,
        infrastructure_base=stage.infrastructure_retries,
        application_base=stage.application_retries,
    )
    service = (CreateService(name),) if shape.topology is Topology.GANG else ()
    policy = CreateNetworkPolicy(run_child_name(config.run.name, "pods"))
    return (policy, CreateConfigMap(name, config), *service, job)


def shape_of(spec: RLHFRunSpec, config: StageConfig, stage: StageStatus) -> Shape:
    if config.stage in SHARDED:
        left = max(0, spec.retry.application - stage.application_retries)
        return Shape(Topology.SHARDED, shards_of(spec, config.stage), parallelism_of(spec, config.stage), left)
    nodes = config.execution.nodes
    return Shape(Topology.GANG, nodes, nodes) if nodes > 1 else Shape(Topology.SINGLE)
