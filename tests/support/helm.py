"""The chart, rendered, installed and removed by the real Helm."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.binaries import program
from support.documents import ROOT

CHART = ROOT / "charts" / "rlhf-operator"
#: One object, as Kubernetes writes it.
Manifest = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(Exception):
    """What Helm said on stderr."""


@dataclass(frozen=True)
class Helm:
    folder: Path
    """For Helm's own files, so that nothing of this machine's settings takes part."""
    kubeconfig: Path | None = None
    _rendered: dict[str, list[Manifest]] = field(default_factory=dict, repr=False)

    def __call__(self, *arguments: str, values: Values | None = None) -> str:
        """Stdout. Raises HelmError."""
        given = ("--values", "-") if values is not None else ()
        done = subprocess.run(
            [program("helm"), *arguments, *given],
            env=self.environment(),
            input=json.dumps(values) if values is not None else "",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        own = {f"HELM_{kind}_HOME": str(self.folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
        return {**outside, **own, "KUBECONFIG": str(self.kubeconfig or os.devnull)}

    def render(self, values: Values, *, release: str = "rlhf", namespace: str = "rlhf-system") -> list[Manifest]:
        """All objects, the pod of `helm test` among them; to be looked at only, for equal calls share them."""
        key = json.dumps([values, release, namespace])
        if key not in self._rendered:
            text = self("template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.34.0", values=values)
            self._rendered[key] = [manifest for manifest in yaml.load_all(text, Loader=_LOADER) if manifest]
        return self._rendered[key]


#: The CRD is long: the C parser saves a second each time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def the(manifests: list[Manifest], kind: str) -> Manifest:
    """The only one of its kind."""
    (found,) = of_kind(manifests, kind)
    return found
