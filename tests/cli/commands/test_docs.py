"""The documentation of rlhfctl is written from rlhfctl, and cannot rot."""

from __future__ import annotations

import subprocess
import sys

import click

from rlhfctl.main import SECTIONS, cli
from support.documents import ROOT
from support.rlhfctl import environment


def test_the_page_is_what_the_commands_say_of_themselves() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "cli_docs.py"), "--check"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_every_option_is_on_the_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    ctx = click.Context(cli, info_name="rlhfctl")
    for entry in (entry for entries in SECTIONS.values() for entry in entries):
        assert f"### rlhfctl {entry.name}\n" in page
        section = page.split(f"### rlhfctl {entry.name}\n")[1].split("\n#")[0]
        command = cli.get_command(ctx, entry.name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in section, f"{entry.name} {parameter.opts}"
