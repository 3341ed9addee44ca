"""`rlhfctl completion`."""

from __future__ import annotations

import click

from rlhfctl.display import terminal


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
    bash  rlhfctl completion bash > ~/.local/share/bash-completion/completions/rlhfctl
    zsh   rlhfctl completion zsh > "${fpath[1]}/_rlhfctl"
    fish  rlhfctl completion fish > ~/.config/fish/completions/rlhfctl.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:
        script = kind(ctx.find_root().command, {}, "rlhfctl", "_RLHFCTL_COMPLETE").source()
        terminal.stdout().line(script.strip())
