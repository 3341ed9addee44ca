"""Which kubeconfig, context and namespace a command means: the rules of kubectl, without connecting to anything.

Rules of kubectl (client-go's clientcmd/loader.go): --kubeconfig alone, else the files of $KUBECONFIG, else ~/.kube/config. Of
several files the first that says something wins, file by file for lists by name, and files that do not exist are passed over.
Without any, a process in a pod uses the pod's own service account.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhfctl.errors import NoConnection, UsageProblem, hint_for

POD_FILES = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Target:
    """What to connect to."""

    files: tuple[Path, ...]
    """The kubeconfigs that hold something, the first wins; none: the pod's own service account."""
    context: str | None
    server: str
    """For messages: https://host:port."""
    namespace: str

    @property
    def in_pod(self) -> bool:
        return not self.files

    @property
    def shown(self) -> str:
        """`context research of /home/ada/.kube/config`."""
        if self.in_pod:
            return "this pod's service account"
        return f"context {self.context!r} of {os.pathsep.join(map(str, self.files))}"


def resolve(
    kubeconfig: str | None, context: str | None, namespace: str | None, env: Mapping[str, str], pod_files: Path = POD_FILES
) -> Target:
    """What the options and the environment select.

    Raises:
        UsageProblem: --kubeconfig or --context names what does not exist.
        NoConnection: no cluster is configured, or a kubeconfig cannot be used.
    """
    candidates = _candidates(kubeconfig, env)
    if kubeconfig is not None and not candidates[0].exists():
        raise UsageProblem(f"there is no kubeconfig {kubeconfig}", hints=("look at --kubeconfig",))
    contents = {path: content for path in candidates if path.exists() and (content := _read(path))}
    files, merged = tuple(contents), _merged(contents.values())
    chosen = context or merged.current
    if chosen is None:
        if context is None and env.get("KUBERNETES_SERVICE_HOST") and (pod_files / "token").exists():
            return _pod(namespace, env, pod_files)
        raise _nothing_configured(candidates, merged)
    if chosen not in merged.contexts:
        raise _no_context(chosen, merged, asked=context is not None)
    entry = merged.contexts[chosen]
    cluster = entry.get("cluster")
    if cluster not in merged.clusters:
        raise NoConnection(f"context {chosen!r} names the cluster {cluster!r}, which no kubeconfig describes", why=_listed(files))
    server = str(merged.clusters[cluster].get("server") or "")
    return Target(files, chosen, server, namespace or entry.get("namespace") or "default")


@dataclass(frozen=True)
class _Merged:
    current: str | None
    contexts: dict[str, Mapping[str, Any]]
    clusters: dict[str, Mapping[str, Any]]


def _candidates(kubeconfig: str | None, env: Mapping[str, str]) -> list[Path]:
    if kubeconfig is not None:
        return [Path(kubeconfig)]
    named = [Path(part) for part in env.get("KUBECONFIG", "").split(os.pathsep) if part]
    return list(dict.fromkeys(named)) or [Path(env.get("HOME") or "~").expanduser() / ".kube" / "config"]


def _merged(contents: Iterable[Mapping[str, Any]]) -> _Merged:
    current: str | None = None
    contexts: dict[str, Mapping[str, Any]] = {}
    clusters: dict[str, Mapping[str, Any]] = {}
    for content in contents:
        current = current or content.get("current-context") or None
        contexts = {**_named(content, "context"), **contexts}
        clusters = {**_named(content, "cluster"), **clusters}
    return _Merged(current, contexts, clusters)


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoConnection(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NoConnection(f"the kubeconfig {path} is no YAML", why=str(error)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise NoConnection(f"the kubeconfig {path} is no kubeconfig: it holds no object")
    return content


def _named(content: Mapping[str, Any], kind: str) -> dict[str, Mapping[str, Any]]:
    entries = content.get(f"{kind}s") or []
    return {entry["name"]: entry.get(kind) or {} for entry in entries if isinstance(entry, dict) and "name" in entry}


def _pod(namespace: str | None, env: Mapping[str, str], pod_files: Path) -> Target:
    server = f"https://{env['KUBERNETES_SERVICE_HOST']}:{env.get('KUBERNETES_SERVICE_PORT', '443')}"
    file = pod_files / "namespace"
    own = env.get("POD_NAMESPACE") or (file.read_text().strip() if file.exists() else "")
    return Target((), None, server, namespace or own or "default")


def _nothing_configured(candidates: list[Path], merged: _Merged) -> NoConnection:
    if merged.contexts:
        return NoConnection(
            "no context of the kubeconfig is the current one",
            why=f"it has {', '.join(sorted(merged.contexts))}",
            hints=("add --context NAME, or choose one for good: kubectl config use-context NAME",),
        )
    return NoConnection(
        "no cluster is configured",
        why=f"looked at {', '.join(map(str, candidates))}",
        hints=("set KUBECONFIG, or give --kubeconfig FILE", "for runs on this machine add --local"),
    )


def _no_context(name: str, merged: _Merged, *, asked: bool) -> UsageProblem | NoConnection:
    why = f"it has {', '.join(sorted(merged.contexts))}" if merged.contexts else "it has no contexts"
    hints = hint_for(name, merged.contexts) or ("kubectl config get-contexts",)
    if asked:
        return UsageProblem(f"the kubeconfig has no context {name!r}", why=why, hints=hints)
    return NoConnection(f"the kubeconfig's current context {name!r} does not exist in it", why=why, hints=hints)


def _listed(files: tuple[Path, ...]) -> str:
    return f"looked at {', '.join(map(str, files))}"
