"""When a request to S3 is sent again, and for how long."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ConnectionError as NotConnected
from botocore.exceptions import HTTPClientError, SSLError

logger = logging.getLogger(__name__)

#: Codes of S3 and its likes for "later"; every 5xx but the two below is "later" too.
RETRIED_CODES = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded", "TooManyRequests"}
    | {"InternalError", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict", "RequestTimeoutException"}
)
_NOT_IMPLEMENTED, _INSUFFICIENT_STORAGE = 501, 507
_FIRST_SECONDS, _LONGEST_SECONDS = 0.1, 5.0


class Retries:
    """For botocore's event `needs-retry.s3`, so each request, and each part of a large file, is sent again by itself.

    Exponential backoff with jitter, until `seconds` have gone by since the request failed first, or since the store went
    away for all requests: many parts that fail one after the other do not add up. Shared between threads.
    """

    def __init__(
        self, seconds: float, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._last_failure = 0.0

    def __call__(
        self,
        response: tuple[Any, dict[str, Any]] | None,
        attempts: int,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        operation: Any,
        **_: object,
    ) -> float | None:
        """Seconds to wait before the next attempt; None: no further one."""
        reason = retryable(response, caught_exception)
        now = self._clock()
        if reason is None:
            self._answered(now)
            return None
        first_failure: float = request_dict["context"].setdefault("rlhf_first_failure", now)
        away = self._failed(now)
        if away == 0:
            logger.warning("S3 %s failed (%s); trying again for up to %.0f s", operation.name, reason, self._seconds)
        left = self._seconds - max(now - first_failure, away)
        if left <= 0:
            return None
        longest: float = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(attempts, 16))
        # At least half of it: a jitter of nearly nothing would hammer a server that is coming up.
        return min(left, longest * (0.5 + 0.5 * self._jitter()))

    def _failed(self, now: float) -> float:
        """How long the store has been away for everybody."""
        with self._lock:
            # A caller that had given up and comes back much later meets a new outage.
            if self._away_since is None or now - self._last_failure > self._seconds:
                self._away_since = now
            self._last_failure = now
            return now - self._away_since

    def _answered(self, now: float) -> None:
        with self._lock:
            away_since, self._away_since = self._away_since, None
        if away_since is not None:
            logger.warning("S3 answers again after %.1f s", now - away_since)


def retryable(response: tuple[Any, dict[str, Any]] | None, exception: Exception | None) -> str | None:
    """Why a request may be sent again, in a word; None: it may not, or need not."""
    if exception is not None:
        transient = isinstance(exception, NotConnected | HTTPClientError) and not isinstance(exception, SSLError)
        return type(exception).__name__ if transient else None
    if response is None:
        return None
    return retryable_answer(response[1])


def retryable_answer(answer: dict[str, Any]) -> str | None:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Error", {}).get("Code", ""))
    later = status == 429 or (status >= 500 and status not in (_NOT_IMPLEMENTED, _INSUFFICIENT_STORAGE))
    return (code or str(status)) if later or code in RETRIED_CODES else None
