"""What this installation of the operator adds to every run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Installation:
    image: str | None = None
    """For a spec without one; pinned in the run's status when the run starts."""
    image_pull_policy: str | None = None
    """For a spec without one."""
    allowed_service_accounts: frozenset[str] = frozenset()
    """Those that storage.credentials may name: else whoever may create a run could borrow any identity of its namespace."""
    run_as: int | None = 65532
    """User and group of the stages; None: the image's, or what the cluster gives (OpenShift)."""
