"""Names of requests to the API server, as RBAC and rlhf_api_requests_total say them."""

from __future__ import annotations

from .resources import CONFIG_MAPS, EVENTS, JOBS, LEASES, NETWORK_POLICIES, PODS, RUNS, SERVICES

_PLURALS = frozenset(r.plural for r in (RUNS, JOBS, PODS, SERVICES, CONFIG_MAPS, NETWORK_POLICIES, EVENTS, LEASES))
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = frozenset({"status", "log"})
OTHER = "other"
"""Discovery, above all."""


def verb_and_resource(method: str, path: str, watch: bool) -> tuple[str, str]:
    """('patch', 'rlhfruns/status') of PATCH /apis/rlhf.dev/v1alpha1/namespaces/a/rlhfruns/b/status; no name that a user chose."""
    parts = path.partition("?")[0].strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    if rest[:1] == ["namespaces"]:
        rest = rest[2:]
    if not rest or rest[0] not in _PLURALS:
        return _VERBS.get(method, "get"), OTHER
    resource = f"{rest[0]}/{rest[2]}" if len(rest) > 2 and rest[2] in _SUBRESOURCES else rest[0]
    if method != "GET":
        return _VERBS.get(method, OTHER), resource
    return ("watch" if watch else "get" if len(rest) > 1 else "list"), resource
