"""What an API server answers instead of what was asked for.

ClusterError
├── NotConfigured              no kubeconfig or service account that leads to a cluster
├── NotLeader                  this process may not write now: another one holds the Lease
└── ApiError                   status, reason and message are the API server's
    ├── Unauthorized           401
    ├── Forbidden              403: RBAC, a quota, an admission plugin
    ├── NotFound               404
    ├── Conflict               409: another resourceVersion or uid than the one that was named
    │   └── AlreadyExists      409: an object of that name is there
    ├── Gone                   410: this list or watch cannot go on; start it again
    ├── Invalid                400, 422: the object will never be accepted as it is
    └── Unavailable            429, 5xx, or no answer at all: worth another try; whether a write was done is not known
        └── ConnectionLost     an answer broke off in its midst
"""

# ruff: noqa: N818 - `except NotFound` reads better than NotFoundError; rlhf_store and httpx do the same.

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


class ClusterError(Exception):
    """Something between us and the API server."""


class NotConfigured(ClusterError):
    """No configuration that leads to a cluster."""


class NotLeader(ClusterError):
    """A write was asked for while another process may be the leader."""


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong with an object: where, and what."""

    field: str
    message: str


def exceeds_quota(message: str) -> bool:
    """The API server's words for it, in an answer and in an Event alike."""
    return "exceeded quota" in message


class ApiError(ClusterError):
    """An answer that is no success. `status` 0: there was no answer."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: float | None = None, causes: tuple[Cause, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""
        self.causes = causes
        """Of Invalid: everything that is wrong, where the server says it one by one."""


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    @property
    def exceeded_quota(self) -> bool:
        return exceeds_quota(self.message)


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class AlreadyExists(Conflict):
    pass


class Gone(ApiError):
    pass


class Invalid(ApiError):
    pass


class Unavailable(ApiError):
    pass


class ConnectionLost(Unavailable):
    pass


_BY_STATUS: dict[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Gone,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: Unavailable,
}


def api_error(status: int, reason: str, message: str, retry_after: float | None = None, causes: tuple[Cause, ...] = ()) -> ApiError:
    """The error of the tree that an answer is."""
    if status == HTTPStatus.CONFLICT and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    kind = _BY_STATUS.get(status, Unavailable if status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR else ApiError)
    return kind(status, reason, message, retry_after=retry_after, causes=causes)
