"""Wrong pods of stages, as wrong_manifests.py has them."""

from __future__ import annotations

from .manifests import mounted, pod
from .wrong_shapes import Wrong

_RESERVED_KEY = "a key is reserved, as rlhf.dev/… and app.kubernetes.io/… are; use a domain of your own before the slash"
_RESERVED_VARIABLE = (
    "reserved, as all that begin with PET_, LD_, PYTHON, RLHF_, JOB_COMPLETION_INDEX, AWS_; "
    "S3 credentials go into storage.credentials"
)

PODS = [
    *(
        Wrong(pod(env=[{"name": name, "value": "x"}]), "spec.sample.pod.env[0].name", _RESERVED_VARIABLE)
        for name in ("PET_NNODES", "LD_PRELOAD", "PYTHONPATH", "AWS_REGION")
    ),
    *(
        Wrong(pod(labels={key: "x"}), f'spec.sample.pod.labels["{key}"]', _RESERVED_KEY, "spec.sample.pod.labels")
        for key in ("rlhf.dev/run", "app.kubernetes.io/name", "batch.kubernetes.io/x", "job-name")
    ),
    Wrong(
        pod(annotations={"kueue.x-k8s.io/x": "y"}),
        'spec.sample.pod.annotations["kueue.x-k8s.io/x"]',
        _RESERVED_KEY,
        "spec.sample.pod.annotations",
    ),
    *(
        Wrong(
            mounted(mountPath=path),
            "spec.sample.pod.volumeMounts[0].mountPath",
            "something else is mounted here; mount it elsewhere",
        )
        for path in ("/dev/shm", "/etc/rlhf/x")
    ),
    *(
        Wrong(
            mounted(subPath=path),
            "spec.sample.pod.volumeMounts[0].subPath",
            "leads out of the volume; write a path inside it, without ..",
        )
        for path in ("a/../../b", "..", "/a")
    ),
    Wrong(
        pod(volumes=[{"name": "rlhf-shm", "emptyDir": {}}]),
        "spec.sample.pod.volumes[0].name",
        "the operator's own volumes have such names",
    ),
]
