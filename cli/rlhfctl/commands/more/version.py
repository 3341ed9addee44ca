"""`rlhfctl version`."""

from __future__ import annotations

import click

from rlhfctl.display import terminal


@click.command("version")
def command() -> None:
    """Print the version."""
    from importlib.metadata import version

    from rlhf_api.words import API_VERSION

    terminal.stdout().line(f"rlhfctl {version('rlhf-operator')}, API {API_VERSION}")
