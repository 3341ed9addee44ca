"""Every command that the documents show runs, in a folder like a checkout with two runs. A list says which do not, and why.

Those that need a cluster are run by test_cluster_stories.py.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from rlhf_operator.local import LocalState
from support import example_runs
from support.documents import CLUSTER_STORIES, ROOT, blocks, commands, story
from support.rlhfctl import environment, rlhfctl
from support.shell import answer_to

#: Command → why it is not run here. What it does is tested elsewhere, or is this very test.
NOT_RUN = {
    "make quickstart": "takes minutes; the engine tests go through it",
    "make test": "runs this test",
    "UPDATE_GOLDEN=1 make test-crash-points": "writes into the checkout, after half an hour",
    "UPDATE_GOLDEN=1 make e2e-faults": "writes into the checkout, after an hour",
    "make test-fast": "runs this test",
    "make lint": "checks the whole checkout, and is a step of CI of its own",
    "make install": "is how this environment came to be",
    "make generate": "writes into the checkout; that its outputs are as they would be is tested",
    "rlhfctl run --local mine.yaml": "loads models; tests/cli/commands/start/test_run.py runs a manifest to its end",
    ".venv/bin/python -m pytest tests/core -k gates": "runs tests; this is one",
    "make programs": "builds for minutes; `make test` begins with it, and tests/repository/test_ahead.py has what it says",
    "make doctor": "looks at this machine; tests/repository/test_doctor.py does",
    'eval "$(.venv/bin/python tests/cluster up)"': "starts a cluster; tests/cluster/test_tool.py does",
    "kubectl get nodes": "needs that cluster; tests/cluster/test_tool.py runs it",
    ".venv/bin/python tests/cluster status": "needs that cluster; tests/cluster/test_tool.py runs it",
    "kubectl apply --server-side -f crds/rlhf.dev_rlhfruns.yaml": "needs that cluster; the fixture `crd` does the same",
    "RLHF_OPERATOR_LEASE_NAMESPACE=default RLHF_OPERATOR_IMAGE=example/rlhf-operator:dev .venv/bin/python -m "
    "rlhf_operator.kubernetes": "runs until it is stopped; tests/kubernetes/app/test_app_runs.py starts it so",
    "docker build --tag registry.example/rlhf-operator:0.1.0 .": "downloads the GPU stack; tests/image builds the variant for CPUs",
    "docker build --tag registry.example/rlhf-operator:0.1.0-cpu --build-arg LOCK=locks/cpu.lock --build-arg COMPILER= "
    "--build-arg TORCHDYNAMO_DISABLE=1 .": "tests/image/builder.py does the same without an engine; see tests/image/test_image.py",
    "docker push registry.example/rlhf-operator:0.1.0": "needs a registry",
    "docker push registry.example/rlhf-operator:0.1.0-cpu": "needs a registry",
    "helm install rlhf-operator charts/rlhf-operator --namespace rlhf-system --create-namespace --set "
    "image.repository=registry.example/rlhf-operator --set image.tag=0.1.0-cpu --wait": "tests/e2e/test_node.py does it",
    ".venv/bin/python tests/image save image.tar": "builds the image; tests/e2e saves it into a pipe",
    "docker run --rm registry.example/rlhf-operator:0.1.0 cat /usr/share/sbom/rlhf-operator.cdx.json": (
        "needs an engine; tests/image/test_image.py reads that file"
    ),
    "kubectl -n alignment create configmap rules --from-file=examples/grades.py": "needs a cluster",
    "docker build --tag registry.example/rlhf-with-rules:1 .": "needs an engine; tests/docs/test_rules.py reads the Dockerfile",
    "docker push registry.example/rlhf-with-rules:1": "needs a registry",
    'eval "$(.venv/bin/python tests/cluster up --size node)"': "starts a real node; tests/cluster/test_node_tool.py does",
    ".venv/bin/python tests/cluster import image.tar": "needs that node; tests/cluster/test_node_tool.py does it",
    ".venv/bin/python tests/cluster down --size node": "would end the node of whoever runs the tests",
    "python3 tools/doctor.py --node": "looks at this machine; tests/repository/test_doctor.py does",
    "make cluster-down": "would end the cluster of whoever runs the tests",
    "UPDATE_GOLDEN=1 .venv/bin/python -m pytest -q tests/api/test_freeze.py": "writes golden files",
    "UPDATE_GOLDEN=1 .venv/bin/python -m pytest -q tests/cli/commands/look/test_looking.py": "writes golden files",
}
_IN_A_CLUSTER = {command for document, heading in CLUSTER_STORIES for command in story(document, heading)}
_RUN = sorted({command for _, command in commands()} - set(NOT_RUN) - _IN_A_CLUSTER)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a reader has in front of them: the files of the checkout, their manifest, a finished quickstart, a run that waits."""
    for name in ("examples", "Makefile", "pyproject.toml", "locks", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (manifest,) = [block.text for block in blocks("yaml") if block.document == "README.md"]
    (tmp_path / "mine.yaml").write_text(manifest)
    state = LocalState(tmp_path / ".rlhf")
    example_runs.save(state.folder, example_runs.finished("quickstart", state.store_url))
    example_runs.save(state.folder, example_runs.paused("mine", state.store_url))
    (state.run_folder("mine") / "logs" / "train-1-1.log").write_text("step 1\n")
    return tmp_path


@pytest.mark.parametrize("command", _RUN)
def test_a_command_of_the_documents_runs(command: str, checkout: Path) -> None:
    """rlhfctl by its entry point, which saves a process; the rest by a shell."""
    program, *arguments = shlex.split(command)
    if program == "rlhfctl":
        done = rlhfctl(*arguments, cwd=checkout)
        assert done.code == 0, f"{command}\n{done.out}{done.err}"
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        answer_to(command, checkout, environment(PATH=path))


def test_the_list_of_commands_that_are_not_run_is_up_to_date() -> None:
    shown = {command for _, command in commands()}
    assert set(NOT_RUN) <= shown, f"no document shows {sorted(set(NOT_RUN) - shown)}"


def test_commands_stand_in_console_blocks_and_nowhere_else() -> None:
    assert not [block for block in blocks() if block.language in ("", "bash", "sh", "shell", "zsh")]
    assert all(block.text.startswith("$ ") for block in blocks("console"))
