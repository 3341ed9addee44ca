"""What kwok makes of nodes and pods: its Stages, as a table. The statuses that they write lie in templates/.

A pod of the operator starts by itself and ends well shortly after, with the result that its stage would leave. Annotations say
otherwise; a manifest gives them to its pods by `pod.annotations`:

    test.rlhf.dev/plan     exit-CODE    ends so, and says in its result that it was planned
                           silent-CODE  ends so without a word
                           no-result    ends well without a word
                           oom          ends with 137, OOMKilled
                           disrupted    ends with 143 and the condition DisruptionTarget
                           hang         runs until it is deleted, and then ends with 143
                           image        waits with ImagePullBackOff
                           config       waits with CreateContainerConfigError
                           played       does nothing: support/player.py plays it
    test.rlhf.dev/attempts the plan is for attempts up to this one; those after it end well
    test.rlhf.dev/takes    how long it runs, "5s"; 300 ms without it

kwok looks at one pod at a time and remembers nothing: every shard says that it sealed the artifact, and resolve and preflight find
none. The player remembers. Pods of others run until they are deleted, or end well where they are not to be restarted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]

PLAN = "test.rlhf.dev/plan"
ATTEMPTS = "test.rlhf.dev/attempts"
TAKES = "test.rlhf.dev/takes"
PLAYED = "played"

_TEMPLATES = Path(__file__).with_name("templates")

# Conditions in jq, on the whole object.
_OURS = '.metadata.labels["app.kubernetes.io/managed-by"] == "rlhf-operator" and .metadata.labels["rlhf.dev/stage"] != null'
_OTHERS = f"({_OURS} | not)"
_PENDING = '(.status.phase // "Pending") == "Pending"'
_RUNNING = '.status.phase == "Running"'
_ENDED = '.status.phase == "Succeeded" or .status.phase == "Failed"'
_UNTOLD = "(.status.containerStatuses // []) == []"
_ONCE = '.spec.restartPolicy == "Never"'
_NOT_READY = '((.status.conditions // []) | map(select(.type == "Ready" and .status == "True")) | length) == 0'
_ATTEMPT = '((.metadata.labels["rlhf.dev/attempt"] // "0") | tonumber)'
_PLANNED_ATTEMPTS = f'((.metadata.annotations["{ATTEMPTS}"] // "1000000") | tonumber)'
#: The plan that holds for this attempt; "" where it does its work.
_PLAN = f'(if {_ATTEMPT} > {_PLANNED_ATTEMPTS} then "" else (.metadata.annotations["{PLAN}"] // "") end)'
_NOT_PLAYED = f'{_PLAN} != "{PLAYED}"'

_USUAL = "300ms"
_CODE = f'{{{{ regexFind "[0-9]+$" (index $pod.metadata.annotations "{PLAN}") }}}}'


def pod_stages() -> list[Json]:
    done = _ended("0", "Completed", _text("result"))
    stopped = _ended("143", "Error", _text("problem", problem="It was told to stop."))
    failed = _ended(_CODE, "Error", _text("problem", problem="It was planned to fail."))
    image = _text("waiting", reason="ImagePullBackOff", message="Back-off pulling image {{ .image }}: not found")
    config = _text("waiting", reason="CreateContainerConfigError", message="secret s3-credentials not found")
    return [
        _pod("start", [f"{_OTHERS} or ({_no_plan('image', 'config')})", _NOT_PLAYED, _PENDING], _text("started")),
        _pod("image", [_OURS, _PENDING, _UNTOLD, _plan("image")], image),
        _pod("config", [_OURS, _PENDING, _UNTOLD, _plan("config")], config),
        _pod("end-other", [_OTHERS, _NOT_PLAYED, _RUNNING, _ONCE], _ended("0", "Completed"), delay="100ms"),
        _pod("end-well", [_OURS, _RUNNING, _plan("")], done, delay=_takes()),
        _pod("no-result", [_OURS, _RUNNING, _plan("no-result")], _ended("0", "Completed"), delay=_takes()),
        _pod("exit", [_OURS, _RUNNING, f'{_PLAN} | startswith("exit-")'], failed, delay=_takes()),
        _pod("silent", [_OURS, _RUNNING, f'{_PLAN} | startswith("silent-")'], _ended(_CODE, "Error"), delay=_takes()),
        _pod("oom", [_OURS, _RUNNING, _plan("oom")], _ended("137", "OOMKilled"), delay=_takes()),
        _pod("disrupted", [_OURS, _RUNNING, _plan("disrupted")], stopped + _text("disrupted"), delay=_takes()),
        # As a kubelet does it: SIGTERM, the end told in the status, and only then the object goes.
        _pod("terminate", [_RUNNING, _NOT_PLAYED], stopped, deleting=True, delay="50ms"),
        _pod("remove", [f"{_ENDED} or ({_PENDING})", _NOT_PLAYED], None, deleting=True),
    ]


def node_stages() -> list[Json]:
    """Ready at once; kwok itself renews their Leases."""
    return [_stage("Node", "node-ready", [_NOT_READY], _text("node"), "0ms")]


def _pod(name: str, conditions: list[str], status: str | None, *, deleting: bool = False, delay: str | Json = "0ms") -> Json:
    dying = f".metadata.deletionTimestamp {'!=' if deleting else '=='} null"
    return _stage("Pod", f"pod-{name}", [dying, *conditions], status, delay)


def _stage(kind: str, name: str, conditions: list[str], status: str | None, delay: str | Json) -> Json:
    """Objects that meet all `conditions` get this status after `delay`; None: they are removed."""
    every = " and ".join(f"({condition})" for condition in conditions)
    patch = {"subresource": "status", "root": "status", "template": status, "type": "strategic"}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": [{"jq": {"key": every, "operator": "In", "values": ["true"]}}]},
            "delay": {"durationMilliseconds": int(delay.removesuffix("ms"))} if isinstance(delay, str) else delay,
            "steps": [{"delete": True} if status is None else {"patch": patch}],
        },
    }


def _plan(name: str) -> str:
    return f'{_PLAN} == "{name}"'


def _no_plan(*names: str) -> str:
    return " and ".join(f'{_PLAN} != "{name}"' for name in names)


def _takes() -> Json:
    return {"durationFrom": {"jq": {"expression": f'.metadata.annotations["{TAKES}"] // "{_USUAL}"'}}}


def _ended(code: str, reason: str, message: str = "") -> str:
    return _text("ended", code=code, reason=reason, message=message, phase="Succeeded" if code == "0" else "Failed")


def _text(template: str, **values: str) -> str:
    """A template with each @name@ replaced."""
    text = (_TEMPLATES / f"{template}.yaml").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
