"""Fixtures for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cluster.fixtures import cluster, crd, namespace  # noqa: F401 - fixtures
from cluster.node_fixtures import node_cluster  # noqa: F401
from rlhf_api.resource.storage import Storage
from support.leaving_out import pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401
from support.s3 import BUCKET, ENVIRONMENT, S3Server

# How long an example takes says nothing on a machine that does other work beside it.
settings.register_profile("without-time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without-time")


def pytest_configure() -> None:
    """A shell makes what it starts in the background deaf to Ctrl-C, and so would be all that is started from here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with one bucket, for the whole session; its credentials are in the environment.

    A test that stops it starts it again; a test that needs other settings makes an S3Server of its own.
    """
    server = S3Server(tmp_path_factory.mktemp("s3")).start()
    try:
        server.create_bucket(BUCKET)
        with pytest.MonkeyPatch.context() as environment:
            for name, value in ENVIRONMENT.items():
                environment.setenv(name, value)
            yield server
    finally:
        server.stop()


@pytest.fixture
def s3_storage(s3_server: S3Server) -> Storage:
    """`spec.storage` of a place on the S3 server that is this test's own."""
    return s3_server.storage()
