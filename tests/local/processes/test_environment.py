"""What of the machine a stage is given for itself."""

from __future__ import annotations

import errno
import socket

import pytest

from rlhf_api.resource.status import StageStatus
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.jobs.launch import launch
from rlhf_operator.core.plan.planner import Planner
from rlhf_operator.local.processes.environment import ReservedPort, stage_environment, surroundings
from support.runs import RUN, spec_of, walk


def test_a_reserved_port_is_its_own_and_the_rendezvous_can_listen_there() -> None:
    reserved = ReservedPort()
    with socket.socket() as other, pytest.raises(OSError, match="in use") as refused:
        other.bind(("127.0.0.1", reserved.port))
    assert refused.value.errno == errno.EADDRINUSE
    # As torch's store does: on all interfaces, with SO_REUSEADDR.
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    server = socket.create_server(("", reserved.port), family=family, dualstack_ipv6=both)
    with server, socket.create_connection(("127.0.0.1", reserved.port)) as client:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"met")
        assert client.recv(3) == b"met"
    reserved.close()


def test_surroundings_are_what_two_processes_of_one_stage_share() -> None:
    first = {"HOME": "/root", "RLHF_POD_UID": "1", "JOB_COMPLETION_INDEX": "0", "PET_NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    second = {"HOME": "/root", "RLHF_POD_UID": "2", "JOB_COMPLETION_INDEX": "1", "OMP_NUM_THREADS": "2"}
    assert surroundings(first) == surroundings(second) == {"HOME": "/root"}
    assert surroundings({**second, "VLLM_CPU_KVCACHE_SPACE": "2"}) != surroundings(first)


def test_what_comes_from_a_secret_in_a_cluster_is_that_of_the_machine_here() -> None:
    secret = {"secretKeyRef": {"name": "wandb", "key": "key"}}
    env = [{"name": "WANDB_API_KEY", "valueFrom": secret}, {"name": "WANDB_MODE", "value": "offline"}]
    planner = Planner(RUN, spec_of(podDefaults={"env": env}))
    config = next(config for config in walk(planner)[0] if config.stage is StageName.SAMPLE)
    status = StageStatus(name=StageName.SAMPLE, phase=Phase.PENDING, attempt=1)
    actions = launch(planner.spec, config, StageName.SAMPLE, status, None)
    action = next(made for made in actions if isinstance(made, CreateJob))
    here = {"WANDB_API_KEY": "of the shell", "WANDB_MODE": "online"}
    found = stage_environment(here, action, index=0, pod="p", threads=1, port=None)
    assert (found["WANDB_API_KEY"], found["WANDB_MODE"]) == ("of the shell", "offline")
