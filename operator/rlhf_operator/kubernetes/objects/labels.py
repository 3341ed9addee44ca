"""Labels and annotations of a run's children: how they are found, and what a Job was made with."""

from __future__ import annotations

from rlhf_api.resource.run import ObjectMeta, RLHFRun
from rlhf_api.words import GROUP, StageName

MANAGER = "rlhf-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
RUN_LABEL = f"{GROUP}/run"
RUN_UID_LABEL = f"{GROUP}/run-uid"
ITERATION_LABEL = f"{GROUP}/iteration"
"""0 for the stages of the run."""
STAGE_LABEL = f"{GROUP}/stage"
"""For a resolve Job: the stage that it resolves; the component label says resolve."""
ATTEMPT_LABEL = f"{GROUP}/attempt"

FINGERPRINT = f"{GROUP}/fingerprint"
RESOLVING = f"{GROUP}/resolving"
INFRASTRUCTURE_BASE = f"{GROUP}/infrastructure-base"
APPLICATION_BASE = f"{GROUP}/application-base"

#: Of an Indexed Job's pod, by the Job's controller.
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
#: All annotations of Jobs and pods that an observation reads.
READ_ANNOTATIONS = (RESOLVING, INFRASTRUCTURE_BASE, APPLICATION_BASE, COMPLETION_INDEX, INDEX_FAILURES, IGNORED_FAILURES)

STAGE_CONTAINER = "stage"
#: Of every Job, Pod and Service that is ours, in the whole cluster.
OURS = f"{MANAGED_BY_LABEL}={MANAGER}"


def run_labels(run: ObjectMeta) -> dict[str, str]:
    """Of everything that belongs to the run with this metadata; also what its NetworkPolicy selects by."""
    return {
        "app.kubernetes.io/name": MANAGER,
        MANAGED_BY_LABEL: MANAGER,
        RUN_LABEL: run.name,
        RUN_UID_LABEL: run.uid or "",
    }


def attempt_labels(run: RLHFRun, iteration: int | None, stage: StageName, attempt: int, component: StageName) -> dict[str, str]:
    return {
        **run_labels(run.metadata),
        "app.kubernetes.io/component": component.value,
        ITERATION_LABEL: str(iteration or 0),
        STAGE_LABEL: stage.value,
        ATTEMPT_LABEL: str(attempt),
    }


def selector(run: str) -> str:
    """Children of runs of this name, whichever uid they have."""
    return f"{OURS},{RUN_LABEL}={run}"
