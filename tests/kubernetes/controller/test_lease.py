"""The Lease on a real API server, with clocks that the tests turn: of all operators one may write, and it stops in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.handle import Cluster as ClusterHandle
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.controller.lease import Lease
from rlhf_operator.kubernetes.settings import LeaseSettings

pytestmark = pytest.mark.cluster
SECONDS = 15


class Contender:
    """One operator's Lease with a clock of its own."""

    def __init__(self, cluster: Cluster, namespace: str, identity: str) -> None:
        self.now = 1000.0
        self.told: list[bool] = []
        self.lease = Lease(
            cluster,
            LeaseSettings(namespace, "rlhf-operator", identity, SECONDS),
            clock=lambda: self.now,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now),
            changed=self.told.append,
        )

    def step(self) -> bool:
        return self.lease.step()

    @property
    def may_write(self) -> bool:
        return self.lease.may_write()


@pytest.fixture
def client(cluster: ClusterHandle) -> Cluster:
    return Cluster.connect(cluster.kubeconfig)


@pytest.fixture
def first(client: Cluster, namespace: str) -> Contender:
    return Contender(client, namespace, "first")


@pytest.fixture
def second(client: Cluster, namespace: str) -> Contender:
    return Contender(client, namespace, "second")


def test_the_first_takes_it_and_the_second_does_not(first: Contender, second: Contender) -> None:
    assert not first.may_write
    assert first.step()
    assert not second.step()
    assert (first.may_write, second.may_write) == (True, False)
    assert (first.told, second.told) == ([True], [])


def test_a_holder_that_renews_keeps_it_for_ever(first: Contender, second: Contender) -> None:
    first.step()
    for _ in range(10):
        first.now += 3
        second.now += 3
        assert first.step()
        assert not second.step()


def test_writes_stop_before_another_may_take_over(first: Contender, second: Contender) -> None:
    first.step()
    second.step()
    first.now += SECONDS * 2 / 3
    second.now += SECONDS * 2 / 3
    assert not first.may_write
    assert not second.step()
    second.now += SECONDS / 3 + 0.1
    assert second.step()
    assert second.may_write


def test_one_that_was_away_finds_that_it_does_not_lead_any_more(first: Contender, second: Contender) -> None:
    first.step()
    second.step()
    second.now += SECONDS + 1
    assert second.step()
    # Its own clock stood still meanwhile, as that of a process that was frozen may.
    assert not first.step()
    assert not first.may_write
    assert first.told == [True, False]


def test_the_wait_is_counted_from_what_was_seen_and_not_by_anybody_elses_clock(first: Contender, second: Contender) -> None:
    second.now = 9_000_000.0
    first.step()
    assert not second.step()
    first.now += 3
    first.step()
    second.now += SECONDS - 1
    assert not second.step()
    second.now += SECONDS - 1
    assert not second.step()
    second.now += 2
    assert second.step()


def test_one_that_lets_go_is_followed_at_once(first: Contender, second: Contender) -> None:
    first.step()
    assert not second.step()
    first.lease.release()
    assert not first.may_write
    assert second.step()
    assert (first.told, second.told) == ([True, False], [True])


def test_letting_go_of_what_another_holds_changes_nothing(first: Contender, second: Contender) -> None:
    first.step()
    second.step()
    second.lease.release()
    assert first.step()
    assert first.may_write


def test_the_same_identity_goes_on_at_once(first: Contender, client: Cluster, namespace: str) -> None:
    first.step()
    again = Contender(client, namespace, "first")
    assert again.step()


def test_a_lease_that_somebody_removed_is_made_again(first: Contender, cluster: ClusterHandle, namespace: str) -> None:
    first.step()
    cluster.kubectl("delete", "lease", "rlhf-operator", "-n", namespace)
    first.now += 3
    assert first.step()
    assert first.may_write
