"""A click group whose commands are imported when they are called. `rlhfctl --help` imports none of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import click

from rlhfctl.errors import hint_for


@dataclass(frozen=True)
class LazyCommand:
    """`module` holds a click command named `command`; `summary` is what the group's help says of it."""

    name: str
    module: str
    summary: str


class LazyGroup(click.Group):
    """Commands in sections, in the order in which a person meets them."""

    def __init__(self, *args: Any, sections: dict[str, tuple[LazyCommand, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self._lazy = {entry.name: entry for entries in sections.values() for entry in entries}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        entry = self._lazy.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = import_module(entry.module).command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._lazy and not name.startswith("-") and not ctx.resilient_parsing:
            self._refuse(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        width = max(map(len, self._lazy))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(width), entry.summary) for entry in entries])

    def _refuse(self, ctx: click.Context, name: str) -> NoReturn:
        hints = "".join(f" {hint[0].upper()}{hint[1:]}" for hint in hint_for(name, self._lazy))
        raise click.UsageError(f"there is no command {name!r}.{hints}", ctx)
