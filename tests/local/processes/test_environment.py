"""What of the machine a stage is given for itself."""

from __future__ import annotations

import errno
import socket

import pytest

from rlhf_operator.local.processes.environment import ReservedPort, surroundings


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
