"""rlhfctl --help: fast, complete, honest."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from rlhfctl.exits import Exit
from rlhfctl.main import SECTIONS, cli
from support.rlhfctl import assert_screen, environment, process, rlhfctl

COMMANDS = [entry for entries in SECTIONS.values() for entry in entries]
HEAVY = (
    "torch",
    "vllm",
    "boto3",
    "botocore",
    "kubernetes",
    "rich",
    "pydantic",
    "yaml",
    "rlhf_api",
    "rlhf_store",
    "rlhf_operator",
    "numpy",
)


def _modules(code: str) -> set[str]:
    """What is imported after `code` ran."""
    program = f"{code}\nsys.stderr.write('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def test_help_imports_no_heavy_module_and_few_in_all() -> None:
    modules = _modules("import sys\nfrom rlhfctl.main import run\nrun(['--help'])")
    assert not [name for name in modules if name.split(".")[0] in HEAVY]
    assert len([name for name in modules if name.startswith("rlhfctl")]) <= 8
    assert len(modules) < 200


def test_a_commands_own_help_loads_nothing_heavy() -> None:
    code = "import sys\nfrom rlhfctl.main import run\n" + "".join(f"run([{entry.name!r}, '--help'])\n" for entry in COMMANDS)
    modules = _modules(code)
    assert not [name for name in modules if name.split(".")[0] in HEAVY]
    assert not [entry.name for entry in COMMANDS if entry.module not in modules]


def test_the_top_level_help_stays_as_it_is() -> None:
    done = rlhfctl("--help")
    assert (done.code, done.err) == (0, "")
    assert_screen("help.txt", done.out)


def test_every_command_has_help_for_itself_and_for_each_of_its_options() -> None:
    ctx = click.Context(cli, info_name="rlhfctl")
    for entry in COMMANDS:
        command = cli.get_command(ctx, entry.name)
        assert command is not None
        assert command.name == entry.name
        assert command.help, entry.name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{entry.name} {parameter.name}"


def test_commands_that_do_nothing_are_not_listed() -> None:
    names = {entry.name for entry in COMMANDS}
    assert not names & {"artifacts", "apply"}


def test_an_unknown_command_names_the_nearest_and_exits_as_wrong_usage() -> None:
    done = rlhfctl("stauts")
    assert done.code == Exit.USAGE
    assert "there is no command 'stauts'. Did you mean 'status'?" in done.err
    assert done.out == ""


def test_exit_codes_are_those_of_the_api() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "RUN_FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "REFUSED": 4,
        "NO_CONNECTION": 5,
        "CONFLICT": 6,
        "TIMEOUT": 100,
        "DETACHED": 101,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_rlhfctl(shell: str) -> None:
    done = rlhfctl("completion", shell)
    assert done.code == 0
    assert "_RLHFCTL_COMPLETE" in done.out


def test_completion_offers_the_commands() -> None:
    done = process(env={"_RLHFCTL_COMPLETE": "bash_complete", "COMP_WORDS": "rlhfctl sta", "COMP_CWORD": "1"})
    assert "status" in done.out


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_names_the_api(asked: str) -> None:
    done = rlhfctl(asked)
    assert done.code == 0
    assert "rlhf.dev/v1alpha1" in done.out
