"""tools/doctor.py names everything that a machine lacks, with what brings it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest

from support.documents import ROOT

SCRIPT = ROOT / "tools" / "doctor.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("doctor", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["doctor"] = module
    spec.loader.exec_module(module)
    return module


doctor = load()
GIB = 2**30
GOOD = doctor.Machine(
    system="Linux",
    architecture="x86_64",
    python=(3, 11),
    has_venv=True,
    has_numa=True,
    memory=16 * GIB,
    shared_memory=4 * GIB,
    disk=40 * GIB,
    folder="/checkout",
    installed=False,
    root=True,
)
BARE = replace(GOOD, has_venv=False, has_numa=False, root=False, node_lacks=frozenset(doctor.NODE_PACKAGES))


def test_a_good_machine_lacks_nothing() -> None:
    assert doctor.check(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "what", "debian", "fedora"),
    [
        ({"has_venv": False}, "venv", ("python3.11-venv",), ("python3-libs",)),
        ({"has_venv": False, "python": (3, 13)}, "venv", ("python3.13-venv",), ("python3-libs",)),
        ({"has_numa": False}, "libnuma.so.1", ("libnuma1",), ("numactl-libs",)),
        (
            {"python": (3, 9)},
            "Python 3.11",
            ("python3.11", "python3.11-venv"),
            ("python3.11",),
        ),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    changes: dict[str, object], what: str, debian: tuple[str, ...], fedora: tuple[str, ...]
) -> None:
    (missing,) = doctor.check(replace(GOOD, **changes))
    assert what in missing.what
    told = "\n".join(doctor.report(GOOD, [missing]))
    assert f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(debian)}\n" in told
    assert f"dnf install --assumeyes {' '.join(fedora)}" in told


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"system": "Darwin", "architecture": "arm64"}, "Linux on x86-64"),
        ({"architecture": "aarch64"}, "Linux on x86-64"),
        ({"python": (3, 15)}, "Python 3.14 or older"),
        ({"memory": 4 * GIB}, "8 GB of memory"),
        ({"shared_memory": 64 * 2**20}, "1 GB of /dev/shm"),
        ({"disk": 11 * GIB}, "12.0 GB of disk"),
        ({"disk": 3 * GIB, "installed": True}, "4.0 GB of disk"),
    ],
)
def test_what_no_package_brings_comes_with_what_to_do(changes: dict[str, object], what: str) -> None:
    (missing,) = doctor.check(replace(GOOD, **changes))
    assert missing.what == what
    assert missing.advice
    assert not missing.debian


def test_an_eight_gigabyte_machine_is_enough() -> None:
    """The kernel keeps some of what was bought."""
    assert doctor.check(replace(GOOD, memory=int(7.6 * GIB))) == []


def test_what_cannot_be_read_is_not_complained_about() -> None:
    assert doctor.check(replace(GOOD, memory=None, shared_memory=None)) == []


def test_everything_is_named_at_once() -> None:
    bare = replace(GOOD, has_venv=False, has_numa=False, memory=GIB, disk=GIB)
    assert len(doctor.check(bare)) == 4


@pytest.mark.parametrize("what", doctor.NODE_PACKAGES)
def test_what_only_a_real_node_needs_is_named_and_keeps_nobody_from_installing(what: str) -> None:
    lacking = replace(GOOD, node_lacks=frozenset({what}))
    (missing,) = doctor.check_node(lacking)
    assert missing.what == what
    told = "\n".join(doctor.report(lacking, [missing]))
    assert f"--no-install-recommends {missing.debian[0]}\n" in told
    assert f"dnf install --assumeyes {missing.fedora[0]}\n" in told
    assert doctor.check(lacking) == []
    assert doctor.check_tests(lacking, with_node=False) == []
    assert doctor.check_tests(lacking, with_node=True) == [missing]


def test_make_test_is_told_everything_at_once_with_one_command_for_all_packages() -> None:
    lacking = doctor.check_tests(BARE, with_node=True)
    told = list(doctor.report(BARE, lacking))
    assert [line for line in told if line.startswith("missing: ")] == [f"missing: {thing.what}" for thing in lacking]
    assert len(lacking) == 3 + len(doctor.NODE_PACKAGES)
    (install,) = [line for line in told if "apt-get" in line]
    assert install.startswith("Debian, Ubuntu: sudo apt-get update && sudo apt-get install --yes --no-install-recommends buildah ")
    packages = {package for thing in lacking for package in thing.debian}
    assert set(install.partition("recommends ")[2].split()) == packages > {"python3.11-venv", "libnuma1", "debootstrap"}
    assert told[-1].endswith("RLHF_SKIP_NODE=1 make test")


def test_who_is_not_root_is_told_so_and_the_way_out() -> None:
    user = replace(GOOD, root=False)
    (missing,) = doctor.check_tests(user, with_node=True)
    assert missing.what == "root"
    assert "RLHF_SKIP_NODE=1 make test" in missing.advice
    assert doctor.check_tests(user, with_node=False) == doctor.check(user) == []


def test_the_way_out_is_not_offered_where_it_does_not_help() -> None:
    lacking = doctor.check_tests(replace(GOOD, has_numa=False), with_node=True)
    assert "RLHF_SKIP_NODE" not in "\n".join(doctor.report(GOOD, lacking))


def test_ci_installs_by_the_very_command_that_is_told() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "tools/doctor.py --command debian" in text
    assert "apt-get install" not in text
    (command,) = doctor.command(GOOD, doctor.check_tests(replace(BARE, root=True), with_node=True), "debian")
    assert f"Debian, Ubuntu: {command}" in doctor.report(GOOD, doctor.check_tests(replace(BARE, root=True), with_node=True))
    assert list(doctor.command(GOOD, [], "debian")) == []


def test_an_old_python_can_read_it() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_it_imports_the_standard_library_alone() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


def test_this_machine_can_install() -> None:
    assert asked() == (0, "", "")


@pytest.mark.node
def test_this_machine_has_what_make_test_needs() -> None:
    assert asked("--node") == (0, "", "")
    assert asked("--tests") == (0, "", "")
    assert asked("--command", "debian") == (0, "", "")


def asked(*options: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
