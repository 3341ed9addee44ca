"""What the API server makes of an RLHFRun: refused with which words, or taken and kept how."""

from __future__ import annotations

from typing import Any

from cluster.api import MERGE_PATCH, Api, ApiError

Json = dict[str, Any]
RESOURCE = "/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns"


def create(api: Api, raw: Json, namespace: str, *, dry: bool = False) -> Json:
    """As `kubectl create` does, with its strict field validation; dry: everything but kept."""
    query = {"fieldValidation": "Strict", "fieldManager": "kubectl-create"} | ({"dryRun": "All"} if dry else {})
    body = {**raw, "metadata": {**raw.get("metadata", {}), "namespace": namespace}}
    return api.request("POST", RESOURCE.format(namespace=namespace), body, query=query)


def change(api: Api, namespace: str, changes: Json, *, name: str = "small", dry: bool = False) -> Json:
    """A merge patch of the object, as `kubectl patch --type=merge` does."""
    path = f"{RESOURCE.format(namespace=namespace)}/{name}"
    query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
    return api.request("PATCH", path, changes, content_type=MERGE_PATCH, query=query)


def change_refused(api: Api, namespace: str, changes: Json, *, name: str = "small") -> str | None:
    """The API server's words against a change; None: it would take it."""
    try:
        change(api, namespace, changes, name=name, dry=True)
    except ApiError as error:
        return error.message
    return None


def refusal(api: Api, raw: Json, namespace: str) -> str | None:
    """The API server's words; None: it would take it."""
    try:
        create(api, raw, namespace, dry=True)
    except ApiError as error:
        return error.message
    return None
