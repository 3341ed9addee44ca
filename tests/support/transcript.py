"""A terminal of 80 columns whose every command and answer is kept, to be shown as a document."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from support.rlhfctl import environment
from support.shell import answer_to

#: What terminals are told to do beside showing characters.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Transcript:
    """`folder` is where commands are typed. `names`: what stands in the document in place of a name that was made up for a test."""

    def __init__(self, folder: Path, env: Mapping[str, str], programs: Path) -> None:
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.folder = folder
        self.names: dict[str, str] = {}
        # What differs from this process's own environment: the rest of that must not show in what is told.
        given = {name: value for name, value in env.items() if os.environ.get(name) != value}
        self._environment = environment(**{**given, "PATH": path, "COLUMNS": "80"})
        self._parts: list[str] = []

    def tell(self, text: str) -> None:
        """A heading, a sentence."""
        self._parts.append(text)

    def type(self, command: str) -> str:
        """What it answered, on stdout and stderr. AssertionError where its exit code is not 0."""
        answer = answer_to(command, self.folder, self._environment)
        self.show(command, answer)
        return answer

    def show(self, command: str, answer: str) -> None:
        """One that somebody else has typed."""
        self._parts.append(f"```text\n$ {command}\n{_ESCAPE.sub('', answer).rstrip()}\n```")

    def show_file(self, name: str, text: str) -> None:
        """Written where the commands are typed, and shown."""
        (self.folder / name).write_text(text)
        self._parts.append(f"`{name}`:\n\n```yaml\n{text.rstrip()}\n```")

    def __str__(self) -> str:
        text = "\n\n".join(self._parts) + "\n"
        for name, shown in self.names.items():
            text = text.replace(name, shown)
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
