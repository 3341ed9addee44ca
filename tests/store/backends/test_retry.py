"""How long a store is waited for: table tests with a clock of our own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError, SSLError

from rlhf_store.backends.retry import Retries, retryable

REFUSED = EndpointConnectionError(endpoint_url="the server")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Request:
    """One request to a server that is away until `back`; time goes by only while it waits."""

    def __init__(self, retries: Retries, clock: Clock) -> None:
        self._retries, self._clock = retries, clock
        self._context: dict[str, Any] = {"context": {}}
        self.attempts = 0

    def send(self, *, back: float = float("inf"), seconds: float = 0.0) -> bool:
        """Each attempt takes `seconds`. True: answered."""
        while True:
            self.attempts += 1
            self._clock.now += seconds
            error = None if self._clock.now >= back else REFUSED
            answer = (None, {"ResponseMetadata": {"HTTPStatusCode": 200}}) if error is None else None
            delay = self._retries(answer, self.attempts, error, self._context, SimpleNamespace(name="GetObject"))
            if delay is None:
                return error is None
            self._clock.now += delay


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def retries(clock: Clock) -> Retries:
    return Retries(120, clock=clock, jitter=lambda: 1.0)


def test_an_outage_shorter_than_the_bound_is_survived(retries: Retries, clock: Clock) -> None:
    assert Request(retries, clock).send(back=clock.now + 119)


def test_a_longer_one_ends_at_the_bound(retries: Retries, clock: Clock) -> None:
    start = clock.now

    assert not Request(retries, clock).send()
    assert clock.now - start == pytest.approx(120)


def test_waits_grow_and_stay_short_enough_to_notice_the_return(retries: Retries, clock: Clock) -> None:
    request = Request(retries, clock)

    request.send()

    assert 20 < request.attempts < 40


def test_requests_one_after_the_other_share_one_outage(retries: Retries, clock: Clock) -> None:
    start = clock.now

    results = [Request(retries, clock).send() for _ in range(10)]

    assert not any(results)
    assert clock.now - start == pytest.approx(120)


def test_slow_timeouts_count(retries: Retries, clock: Clock) -> None:
    start = clock.now

    assert not Request(retries, clock).send(seconds=60)
    # The last attempt begins within the bound and takes its 60 s.
    assert clock.now - start <= 120 + 2 * 60


def test_a_new_outage_has_its_own_time(retries: Retries, clock: Clock) -> None:
    assert Request(retries, clock).send(back=clock.now + 100)
    assert Request(retries, clock).send(back=clock.now + 100)


def test_whoever_gave_up_and_comes_back_much_later_waits_again(retries: Retries, clock: Clock) -> None:
    assert not Request(retries, clock).send()
    clock.now += 600

    assert Request(retries, clock).send(back=clock.now + 100)


def test_one_request_that_always_fails_ends_though_others_are_answered(retries: Retries, clock: Clock) -> None:
    start, attempts, delay = clock.now, 0, 0.0
    context: dict[str, Any] = {"context": {}}
    while True:
        attempts += 1
        answered = retries((None, {}), 1, None, {"context": {}}, SimpleNamespace(name="HeadObject"))
        assert answered is None
        result = retries(None, attempts, REFUSED, context, SimpleNamespace(name="GetObject"))
        if result is None:
            break
        delay = result
        clock.now += delay

    assert clock.now - start == pytest.approx(120)


@pytest.mark.parametrize(
    ("response", "error", "again"),
    [
        (None, REFUSED, True),
        (None, ConnectTimeoutError(endpoint_url=""), True),
        (None, ReadTimeoutError(endpoint_url=""), True),
        (None, SSLError(endpoint_url="", error=Exception("certificate")), False),
        (None, ValueError("ours"), False),
        ((500, "InternalError"), None, True),
        ((503, "SlowDown"), None, True),
        ((502, "502"), None, True),
        ((429, "TooManyRequests"), None, True),
        ((400, "RequestTimeout"), None, True),
        ((409, "ConditionalRequestConflict"), None, True),
        ((200, "InternalError"), None, True),
        ((501, "NotImplemented"), None, False),
        ((507, "XMinioStorageFull"), None, False),
        ((412, "PreconditionFailed"), None, False),
        ((404, "NoSuchKey"), None, False),
        ((403, "AccessDenied"), None, False),
        ((301, "PermanentRedirect"), None, False),
        ((200, ""), None, False),
    ],
)
def test_what_may_help_is_tried_again_and_nothing_else(
    response: tuple[int, str] | None, error: Exception | None, again: bool
) -> None:
    answer = response and (None, {"ResponseMetadata": {"HTTPStatusCode": response[0]}, "Error": {"Code": response[1]}})

    assert (retryable(answer, error) is not None) is again
