"""The documents' chapters on clusters, followed as a new user would: every command, in order, in a fresh cluster.

Nobody runs pods there, so the operator that Helm has installed runs here, as its Deployment and its ServiceAccount have it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import start
from cluster.handle import Cluster
from cluster.layout import layout
from cluster.processes import Identity
from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from support.binaries import program
from support.documents import CLUSTER_STORIES, ROOT, blocks, story, text_of
from support.helm import Helm
from support.installed import Installed
from support.operator_process import OperatorProcess
from support.rlhfctl import environment
from support.shell import answer_to
from support.waiting import wait_until

#: Command that has no end → what a reader waits for.
ENDLESS = {"kubectl -n alignment get rlhf -w": "Succeeded"}
_PATIENCE_SECONDS = 300


class Reader:
    """Types commands into a shell in a checkout, and has a cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.helm = Helm(folder / "helm", cluster.kubeconfig)
        path = os.pathsep.join([str(cluster.layout.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        # A user's Python keeps what it has compiled; without that, each rlhfctl compiles the cluster's client again.
        compiled = {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        self._environment = environment(**{**self.helm.environment(), **compiled, "PATH": path, "HOME": str(folder)})
        self._operators: dict[str, OperatorProcess] = {}
        self._environments: dict[str, dict[str, str]] = {}

    def type(self, command: str) -> None:
        words = shlex.split(command)
        if words[:2] == ["helm", "uninstall"]:
            self._operators.pop(words[2]).stop()
        if command in ENDLESS:
            self._watch(command, ENDLESS[command])
        else:
            answer_to(command, self.folder, self._environment)
        if words[:2] in (["helm", "install"], ["helm", "upgrade"]):
            self._start(words[2], words[words.index("--namespace") + 1])

    def leave(self) -> None:
        for operator in self._operators.values():
            operator.kill()

    def _start(self, release: str, namespace: str) -> None:
        """What the cluster does: where the Deployment's pod is another than before, the former goes and the new one comes."""
        installed = Installed(self.cluster, self.helm, release, namespace)
        if self._environments.get(release) == installed.environment:
            return
        self._environments[release] = installed.environment
        if former := self._operators.pop(release, None):
            assert former.stop() == 0
        folder = self.folder / f"{release}-{len(list(self.folder.glob(f'{release}-*')))}"
        folder.mkdir()
        operator = self._operators[release] = installed.operator(folder).start()
        operator.wait_leading()

    def _watch(self, command: str, word: str) -> None:
        """Until the word appears; then Ctrl-C."""
        shown = self.folder / "shown"
        with shown.open("w") as output:
            process = subprocess.Popen(shlex.split(command), cwd=self.folder, env=self._environment, stdout=output, stderr=output)
        try:
            wait_until(lambda: word in shown.read_text(), f"{word} of: {command}", seconds=_PATIENCE_SECONDS, every=0.2)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_PATIENCE_SECONDS)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for name in ("charts", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    texts = [block.text for block in blocks("yaml") if block.document == "docs/kubernetes.md"]
    (manifest,) = [text for text in texts if "kind: RLHFRun" in text]
    (tmp_path / "run.yaml").write_text(manifest)
    program("helm")
    own = layout(f"story-{os.getpid()}")
    start.up(own, Identity.of(os.getpid()))
    reader = Reader(Cluster(own, own.admin), tmp_path)
    try:
        yield reader
    finally:
        reader.leave()
        start.down(own)


@pytest.mark.cluster
@pytest.mark.parametrize(("document", "heading"), CLUSTER_STORIES)
def test_a_new_user_can_follow_it(reader: Reader, document: str, heading: str) -> None:
    for command in story(document, heading):
        reader.type(command)


@pytest.mark.parametrize(("document", "heading"), CLUSTER_STORIES)
def test_it_begins_with_the_installation(document: str, heading: str) -> None:
    """So that it is a whole story, and one was found at all."""
    commands = story(document, heading)
    assert commands[0].startswith("helm install rlhf-operator charts/rlhf-operator ")
    assert len(commands) >= 5


def test_every_metric_stands_in_the_table_with_its_meaning() -> None:
    metrics = Metrics()
    metrics.serve_runs(dict)
    metrics.serve_untouched(lambda: 0)
    metrics.serve_queue(lambda: 0)
    ours = [family for family in metrics.registry.collect() if family.name.startswith("rlhf_")]
    rows = text_of("docs/kubernetes.md").splitlines()
    assert ours
    for family in ours:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {family.documentation} |")
