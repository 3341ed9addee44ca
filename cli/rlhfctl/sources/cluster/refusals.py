"""What an answer of the API server means to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhf_operator.kubernetes.api import errors as api
from rlhf_operator.kubernetes.api.resources import Resource
from rlhfctl.errors import CliError, Conflict, NoConnection, NotFound, Refused

from .kubeconfig import Target

_INSTALL = "helm upgrade --install rlhf-operator charts/rlhf-operator -n rlhf-system --create-namespace"


@contextmanager
def told(target: Target, verb: str, resource: Resource, namespace: str | None) -> Iterator[None]:
    """Whatever the API server refuses is raised as a CliError."""
    try:
        yield
    except api.ClusterError as error:
        raise error_of(error, target, verb, resource, namespace) from error


def error_of(
    error: api.ClusterError, target: Target, verb: str, resource: Resource, namespace: str | None, subresource: str = ""
) -> CliError:
    """What an answer means to a person."""
    what = resource.plural + (f"/{subresource}" if subresource else "")
    where = f"in namespace {namespace!r}" if namespace else "in all namespaces"
    match error:
        case api.NotConfigured():
            return NoConnection(f"{target.shown} cannot be used", why=str(error))
        case api.Unauthorized():
            return NoConnection(
                f"{target.server} does not accept the credentials of {target.shown}",
                why=error.message,
                hints=("log in again, or choose another context with --context",),
            )
        case api.Forbidden() if "cannot" in error.message:
            flags = f"-n {namespace}" if namespace else "-A"
            full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            sub = f" --subresource={subresource}" if subresource else ""
            return NoConnection(
                f"you may not {verb} {what} {where}",
                why=error.message,
                hints=(f"ask for it, then look: kubectl auth can-i {verb} {full}{sub} {flags}",),
            )
        case api.NotFound() if not _names_an_object(error):
            return NoConnection(
                f"{target.server} does not know the kind RLHFRun",
                why="the CRD, which the operator's chart brings, is not installed",
                hints=(_INSTALL,),
            )
        case api.NotFound():
            return NotFound(error.message)
        case api.Conflict():
            return Conflict(error.message)
        case api.Invalid() | api.Forbidden():
            causes = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in error.causes]
            return Refused(f"{target.server} refuses it", why="\n".join(causes) or error.message)
        case api.Unavailable():
            return NoConnection(
                f"{target.server} does not answer",
                why=f"{error.message}\n({target.shown})",
                hints=("kubectl cluster-info", "choose another context with --context, or --local for runs on this machine"),
            )
        case _:
            return CliError(f"{target.server} did not {verb} {what} {where}", why=str(error))


def _names_an_object(error: api.NotFound) -> bool:
    """`rlhfruns.rlhf.dev "x" not found`; a kind that is not served has no such words."""
    return error.reason == "NotFound" and '"' in error.message
