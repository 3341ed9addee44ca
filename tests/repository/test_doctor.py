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
    has_headers=True,
    has_venv=True,
    has_compiler=True,
    has_numa=True,
    memory=16 * GIB,
    shared_memory=4 * GIB,
    disk=40 * GIB,
    folder="/checkout",
    installed=False,
)


def test_a_good_machine_lacks_nothing() -> None:
    assert doctor.check(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "what", "debian", "fedora"),
    [
        ({"has_headers": False}, "Python.h", ("python3.11-dev",), ("python3-devel",)),
        ({"has_headers": False, "python": (3, 13)}, "Python.h", ("python3.13-dev",), ("python3-devel",)),
        ({"has_venv": False}, "venv", ("python3.11-venv",), ("python3-libs",)),
        ({"has_compiler": False}, "C++ compiler", ("g++",), ("gcc-c++",)),
        ({"has_numa": False}, "libnuma.so.1", ("libnuma1",), ("numactl-libs",)),
        (
            {"python": (3, 9)},
            "Python 3.11",
            ("python3.11", "python3.11-dev", "python3.11-venv"),
            ("python3.11", "python3.11-devel"),
        ),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    changes: dict[str, object], what: str, debian: tuple[str, ...], fedora: tuple[str, ...]
) -> None:
    (missing,) = doctor.check(replace(GOOD, **changes))
    assert what in missing.what
    told = "\n".join(missing.lines())
    assert f"sudo apt-get install {' '.join(debian)}" in told
    assert f"sudo dnf install {' '.join(fedora)}" in told


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
    bare = replace(GOOD, has_headers=False, has_venv=False, has_compiler=False, has_numa=False, memory=GIB, disk=GIB)
    assert len(doctor.check(bare)) == 6


@pytest.mark.parametrize("what", doctor.NODE_PACKAGES)
def test_what_only_a_real_node_needs_is_named_and_keeps_nobody_from_installing(what: str) -> None:
    lacking = replace(GOOD, node_lacks=frozenset({what}))
    (missing,) = doctor.check_node(lacking)
    assert missing.what == what
    told = "\n".join(missing.lines())
    assert "sudo apt-get install" in told
    assert "sudo dnf install" in told
    assert doctor.check(lacking) == []


def test_an_old_python_can_read_it() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 9))


def test_it_imports_the_standard_library_alone() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


def test_this_machine_passes_and_lacks_no_package() -> None:
    for options in ((), ("--node",)):
        done = subprocess.run([sys.executable, "-I", str(SCRIPT), *options], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), "--packages", "debian"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
