"""What a user installs, as a user has it: the real image on a real kubelet, chart, operator in a pod, S3, vLLM, DeepSpeed over a
headless Service. A run of two iterations loses its operator, a sampler and a training rank; then many looks at it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.words import Phase
from support.documents import ROOT
from support.golden import updating
from support.mini import downloaded, stages_of
from support.node_faults import PATIENCE_SECONDS, TRAINING, at_work, component, index_of, name_of
from support.node_installation import Installation, RunOnNode
from support.rlhfctl import environment, process
from support.s3 import SECRET_FORMS

NAME = "mini"
pytestmark = [pytest.mark.e2e, pytest.mark.node, pytest.mark.timeout(3600)]
ITERATIONS = (1, 2)
OF_AN_ITERATION = ("sample", "label", "reference", "train", "evaluate")
OF_THE_RUN = ("preflight-0", "sft-0", "reward-0", "evaluate-0", "finalize-0")
TRANSCRIPT = ROOT / "docs" / "transcript.md"
INTRODUCTION = """# A run on a real node, from `helm install` to the best iterate

Written by `UPDATE_GOLDEN=1 make e2e` while it ran: the image of this repository, a kubelet with containerd, an S3 server, a
model so tiny that two cores train it in minutes. Commands and answers are as they were, but for the image's tag, which is
made from its contents.

Both namespaces are new; `keys.env` has the two keys of the S3 server. The last two options of `helm install` take over a CRD that
an earlier release has left. Columns of metrics are explained in [api.md](api.md#metrics). With 32 prompts their intervals hold 0.5:
this run shows that the machinery works, not that the model gets better; that the README's quickstart does.

"""
Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A run that has ended, and what was to be seen of it meanwhile."""

    run: RunOnNode
    rows: list[str]
    """Of `kubectl get rlhf -w`."""
    followed: tuple[int, str, str]
    """Exit code, stdout and stderr of `rlhfctl logs -f`."""
    watched: tuple[int, str, str]
    """The same of `rlhfctl status --watch`."""
    pods: dict[str, Json]
    """Each stage pod, as it was seen last, by its name."""

    @property
    def status(self) -> RLHFRunStatus:
        return self.run.status


@pytest.fixture(scope="module")
def seen(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("run")
    terminal, of_runs = installation.terminal, f"-n {installation.runs}"
    run = installation.prepare(NAME, folder)
    terminal.tell("## Run")
    terminal.show_file("run.yaml", yaml.safe_dump(run.manifest, sort_keys=False))
    terminal.type("rlhfctl validate run.yaml")
    terminal.type(f"kubectl {of_runs} apply -f run.yaml")
    watcher = Watcher(run, folder)
    try:
        terminal.tell("## Three faults\n\nA sampler, the operator and a training rank are deleted while they work.")
        delete = f"kubectl {of_runs} delete pod --wait=false"
        terminal.type(f"{delete} {name_of(at_work(run, 'sample', iteration=1, index=1))}")
        at_work(run, "label", iteration=1)
        terminal.type(f"kubectl -n {installation.home} delete pod --all --grace-period 0 --force")
        at_work(run, "train", iteration=1, saying=TRAINING)
        terminal.type(f"kubectl -n {installation.home} get pods")
        terminal.type(f"kubectl {of_runs} get pods -l rlhf.dev/stage=train")
        terminal.type(f"{delete} {name_of(at_work(run, 'train', iteration=1, index=1))}")
        terminal.type(f"rlhfctl status {NAME} {of_runs}")
        run.until_finished(PATIENCE_SECONDS)
    finally:
        found = watcher.ended()
    terminal.tell("## What was to be seen of it")
    terminal.show(f"kubectl {of_runs} get rlhf {NAME} --watch", "\n".join(found.rows))
    terminal.type(f"rlhfctl logs {NAME} {of_runs} --stage train --iteration 1")
    terminal.type(f"rlhfctl events {NAME} {of_runs}")
    terminal.type(f"kubectl {of_runs} get jobs")
    terminal.type(f"rlhfctl status {NAME} {of_runs}")
    return found


class Watcher:
    """Three people at their terminals, and one who writes down what pods there are."""

    def __init__(self, run: RunOnNode, folder: Path) -> None:
        cluster, of_runs = run.installation.cluster, ["-n", run.installation.runs]
        self._run, self._folder, self._environment = run, folder, environment(**cluster.environment)
        rlhfctl = [sys.executable, "-m", "rlhfctl"]
        self._kubectl = self._start("kubectl", [str(cluster.binaries.kubectl), *of_runs, "get", "rlhf", NAME, "--watch"])
        self._logs = self._start("logs", [*rlhfctl, "logs", NAME, "-f", *of_runs])
        self._status = self._start("status", [*rlhfctl, "status", NAME, "--watch", *of_runs])
        self._pods: dict[str, Json] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def ended(self) -> Seen:
        """Once the run has."""
        followed, watched = self._said("logs", self._logs), self._said("status", self._status)
        self._kubectl.kill()
        _, rows, errors = self._said("kubectl", self._kubectl)
        self._over.set()
        self._thread.join()
        return Seen(self._run, (rows + errors).splitlines(), followed, watched, self._pods)

    def _look(self) -> None:
        while not self._over.wait(1.0):
            self._pods |= {name_of(pod): pod for pod in self._run.run.pods()}

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.out").open("w") as out, (self._folder / f"{name}.err").open("w") as err:
            return subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)

    def _said(self, name: str, process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
        try:
            code = process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        out, err = ((self._folder / f"{name}.{stream}").read_text() for stream in ("out", "err"))
        return code, out, err


def test_it_succeeds_with_metrics_of_every_iteration_and_a_checkpoint(seen: Seen) -> None:
    status = seen.status
    assert status.phase is Phase.SUCCEEDED, status.message
    assert [iteration.number for iteration in status.iterations] == list(ITERATIONS)
    assert all(iteration.metrics for iteration in status.iterations)
    assert status.best_iteration in (0, *ITERATIONS)
    assert set(stages_of(status)) == {*OF_THE_RUN, *(f"{stage}-{number}" for number in ITERATIONS for stage in OF_AN_ITERATION)}


def test_each_artifact_was_sealed_once_though_three_pods_were_killed(seen: Seen) -> None:
    """Counted from the S3 server's access log."""
    put = seen.run.manifests_put()
    # What preflight prepared for sft and for reward; sft, reward and the evaluation of pi_0; and five an iteration.
    assert len(put) == len(set(put)) == 2 + 3 + len(ITERATIONS) * len(OF_AN_ITERATION)


def test_what_was_killed_was_booked_as_infrastructure_and_nothing_else_was(seen: Seen) -> None:
    """A sampler is replaced inside its Job; a rank's death ends the attempt, and the next goes on. The operator's costs nothing."""
    stages = stages_of(seen.status)
    retries = {name: stage.infrastructure_retries for name, stage in stages.items() if stage.infrastructure_retries}
    assert retries == {"sample-1": 1, "train-1": 1}
    assert not any(stage.application_retries for stage in stages.values())
    assert stages["sample-1"].attempt == 1


def test_a_sample_has_two_shards_and_a_training_two_nodes_with_a_rank_each(seen: Seen) -> None:
    for stage in ("sample", "train"):
        pods = [pod for pod in seen.pods.values() if component(pod) == stage]
        assert {index_of(pod) for pod in pods} == {0, 1}
    ranks = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1"}
    assert all(ranks.items() <= variables(pod).items() for pod in pods)


def variables(pod: Json) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}


def test_kubectl_showed_every_stage_of_it(seen: Seen) -> None:
    shown = {tuple(row.split()[1:4]) for row in seen.rows[1:]}
    expected = {("Running", str(number), stage) for number in ITERATIONS for stage in OF_AN_ITERATION}
    assert expected <= shown
    assert seen.rows[-1].split()[1] == "Succeeded"


def test_rlhfctl_showed_every_stage_of_it(seen: Seen) -> None:
    code, out, err = seen.watched
    assert code == 0, err
    headings = {f"iteration {number} of {len(ITERATIONS)}, {stage}" for number in ITERATIONS for stage in OF_AN_ITERATION}
    assert {heading for heading in headings if heading not in out} == set()


def test_rlhfctl_followed_its_logs_from_pod_to_pod(seen: Seen) -> None:
    code, out, err = seen.followed
    assert code == 0, err
    headings = re.sub(r"\s+", " ", err)
    for number in ITERATIONS:
        for stage in OF_AN_ITERATION:
            assert f"{stage}, iteration {number}, attempt" in headings
    assert "is done" in out


def test_the_log_of_a_pod_that_is_gone_comes_from_the_store(seen: Seen) -> None:
    """The sampler that was killed: its name was given to another pod, and its log is kept beside that one's."""
    run, namespace = seen.run, seen.run.installation.runs
    cluster = run.installation.cluster
    job = next(pod for pod in seen.pods.values() if component(pod) == "sft")["metadata"]["labels"]["job-name"]
    there = cluster.kubectl("-n", namespace, "logs", f"job/{job}")
    cluster.kubectl("-n", namespace, "delete", "job", job, "--wait", "--cascade=foreground")
    done = process("logs", NAME, "--stage", "sft", "-n", namespace, env=cluster.environment)
    assert done.code == 0, done.err
    assert done.out.splitlines() == there.splitlines()
    kept = [entry.key for entry in run.store.list(f"runs/{namespace}/{NAME}/")]
    assert [key for key in kept if "/logs/sample-1-1-1" in key and key.endswith(".2.log")]


def test_transformers_loads_the_checkpoint(seen: Seen, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = seen.status.checkpoint
    assert checkpoint is not None
    folder = downloaded(seen.run.store, checkpoint.url.removeprefix(f"{seen.run.storage.url}/"), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)


def test_no_secret_is_anywhere_but_in_its_secret(seen: Seen) -> None:
    told = seen.run.told() | {"followed": "".join(seen.followed[1:]), "terminal": str(seen.run.installation.terminal)}
    assert len(told) > 20
    assert [where for where, text in told.items() if any(form in text for form in SECRET_FORMS)] == []


def test_every_pod_is_as_restricted_as_its_namespace_demands(seen: Seen) -> None:
    for pod in seen.pods.values():
        (container,) = pod["spec"]["containers"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not pod["spec"]["automountServiceAccountToken"]
    assert json.dumps(seen.run.installation.operator_pods()).count('"restartCount": 0') == 1


def test_the_transcript_in_the_documents_is_of_these_commands(seen: Seen) -> None:
    """UPDATE_GOLDEN=1 writes this run's."""
    text = str(seen.run.installation.terminal)
    if updating():
        TRANSCRIPT.write_text(INTRODUCTION + text)
    assert commands_in(TRANSCRIPT.read_text()) == commands_in(text)


def commands_in(text: str) -> list[str]:
    """Without the five characters that end the name of a pod."""
    return [re.sub(r"(-\d+)-[a-z0-9]{5}$", r"\1", line) for line in text.splitlines() if line.startswith("$ ")]
