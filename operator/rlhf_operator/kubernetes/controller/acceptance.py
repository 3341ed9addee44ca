"""What the API server let through and this operator cannot run: told in the run's status, with what to change.

The CRD's schema and rules catch most; `kubectl apply` runs no others, so all rules of `rlhfctl validate` are looked at here again,
once, before the run has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from rlhf_api.reading.unknown import Mismatch
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.validation import validate
from rlhf_api.words import Phase, Reason
from rlhf_operator.core.observed import Refusal
from rlhf_operator.core.status.conditions import Standing, with_standing
from rlhf_operator.core.status.sentences import clip
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.errors import Conflict, NotFound
from rlhf_operator.kubernetes.api.resources import RUNS, Json
from rlhf_operator.kubernetes.installation import Installation


class Acceptance:
    """Remembers its answer for the generation of spec that it has looked at."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._seen: tuple[str | None, int | None] | None = None
        self._refusals: tuple[Refusal, ...] = ()

    def refusals(self, raw: Json, run: RLHFRun) -> tuple[Refusal, ...]:
        """Empty for a run that has begun: what it began with was accepted, perhaps by another version."""
        if run.status is not None and (run.status.stages or run.status.phase.finished):
            return ()
        seen = (run.metadata.uid, run.metadata.generation)
        if seen != self._seen:
            self._seen = seen
            problems = [*(str(problem) for problem in validate(raw).problems), *self._of_the_installation(run)]
            message = clip("The manifest cannot be run: " + " ".join(_sentence(problem) for problem in problems))
            self._refusals = (Refusal(run.metadata.name, Reason.CONFIGURATION_ERROR, message),) if problems else ()
        return self._refusals

    def _of_the_installation(self, run: RLHFRun) -> list[str]:
        problems = []
        if run.spec.image is None and self._installation.image is None:
            problems.append("spec.image: absent, and this operator has no image of its own; name one")
        credentials = run.spec.storage.credentials
        account = None if credentials is None else credentials.service_account_name
        if account is not None and account not in self._installation.allowed_service_accounts:
            allowed = ", ".join(sorted(self._installation.allowed_service_accounts)) or "none"
            problems.append(
                f"spec.storage.credentials.serviceAccountName: {account} is not on this operator's list (allowed: {allowed}); "
                "use secretRef, or ask whoever installed it to add the name to allowedServiceAccounts"
            )
        return problems


def refuse_unreadable(cluster: Cluster, raw: Json, why: Sequence[Mismatch], now: datetime) -> bool:
    """End a run that no operator has begun and whose manifest this version's models do not take, though the API server did: nothing
    is lost, and somebody waits for an answer. False, and nothing done, where an operator has written its status, or a word of it
    may be another version's: of such a run nothing is concluded.
    """
    if raw.get("status") or any(entry.word for entry in why):
        return False
    message = clip(f"This version of the operator cannot read it: {why[0]}. Is the CRD of the same version?")
    identity = {"uid": raw["metadata"]["uid"], "resourceVersion": raw["metadata"]["resourceVersion"]}
    namespace, name = raw["metadata"]["namespace"], raw["metadata"]["name"]
    patch = _refused(message, raw["metadata"].get("generation"), now).to_wire()
    # It may be another one by now.
    with suppress(Conflict, NotFound):
        cluster.merge_patch(RUNS, namespace, name, {"metadata": identity, "status": patch}, subresource="status")
    return True


def _refused(message: str, generation: int | None, now: datetime) -> RLHFRunStatus:
    standing = Standing(Phase.FAILED, Reason.CONFIGURATION_ERROR, message)
    return with_standing(RLHFRunStatus(observed_generation=generation), standing, generation, now)


def _sentence(problem: str) -> str:
    return problem if problem.endswith(".") else f"{problem}."
