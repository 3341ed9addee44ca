"""A local run changes no number of ranks and leaves no GPU out by itself: it says what does not fit the machine."""

from __future__ import annotations

from typing import Any

from rlhf_api.validation import Machine, check_environment, check_machine, validate
from support.manifests import manifest

GPU = {"resources": {"limits": {"nvidia.com/gpu": 2}}}


def said(changes: dict[str, Any], machine: Machine, *, cpu: bool = False) -> list[str]:
    run = validate(manifest(changes), local=True).run
    assert run is not None
    return [str(problem) for problem in check_machine(run.spec, machine, cpu=cpu)]


def test_more_ranks_than_cores_name_the_field() -> None:
    (problem,) = said({"spec.train.compute": {"processesPerNode": 4}}, Machine(cores=2))
    assert problem.startswith("spec.train.compute.processesPerNode: 4: 4 ranks (nodes 1 times processesPerNode 4)")
    assert problem.endswith("and this machine has 2 cores; write at most 2")


def test_as_many_ranks_as_cores_are_fine() -> None:
    assert said({"spec.train.compute": {"nodes": 2, "processesPerNode": 2}}, Machine(cores=4)) == []


def test_nodes_count_as_ranks_of_this_machine() -> None:
    (problem,) = said({"spec.train.compute": {"nodes": 4}}, Machine(cores=2))
    assert "4 ranks" in problem
    assert "and nodes: 1" in problem


def test_gpus_that_the_machine_does_not_have_are_refused_with_the_way_out() -> None:
    (problem,) = said({"spec.sample.pod": GPU}, Machine(cores=2))
    assert problem.startswith('spec.sample.pod.resources.limits["nvidia.com/gpu"]: 2: this machine has no GPU; use --cpu')
    assert said({"spec.sample.pod": GPU}, Machine(cores=2, gpus=1)) == [
        'spec.sample.pod.resources.limits["nvidia.com/gpu"]: 2: this machine has 1 GPUs; write at most 1'
    ]


def test_gpus_of_pod_defaults_count_too() -> None:
    assert len(said({"spec.podDefaults": GPU}, Machine(cores=2))) == 1


def test_cpu_goes_without_gpus() -> None:
    assert said({"spec.sample.pod": GPU}, Machine(cores=2), cpu=True) == []


def test_gpus_that_are_there_are_fine() -> None:
    assert said({"spec.sample.pod": GPU}, Machine(cores=2, gpus=2)) == []


def test_the_nodes_of_a_gang_have_their_gpus_together() -> None:
    """One that is never given is waited for for ever."""
    two_nodes = {"spec.train.compute": {"nodes": 2, "processesPerNode": 1, "pod": GPU}}
    (problem,) = said(two_nodes, Machine(cores=4, gpus=3))
    assert problem.startswith(
        "spec.train.compute.nodes: 2: 2 nodes of 2 GPUs run together, and this machine has 3; write at most 1"
    )
    assert said(two_nodes, Machine(cores=4, gpus=4)) == []
    assert said(two_nodes, Machine(cores=4, gpus=3), cpu=True) == []


def test_what_comes_from_a_secret_must_be_in_the_environment_of_a_local_run() -> None:
    secret = {"secretKeyRef": {"name": "wandb", "key": "key"}}
    run = validate(manifest({"spec.podDefaults": {"env": [{"name": "WANDB_API_KEY", "valueFrom": secret}]}}), local=True).run
    assert run is not None
    (problem,) = check_environment(run.spec, {})
    assert str(problem).startswith("spec.podDefaults.env[0]: WANDB_API_KEY is to come from a Secret")
    assert str(problem).endswith("set WANDB_API_KEY in the environment that rlhfctl is started in")
    assert check_environment(run.spec, {"WANDB_API_KEY": "k"}) == []
