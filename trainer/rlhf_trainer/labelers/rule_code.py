"""The code of a rule, and its revision: what scores is as much an input of labels as the samples are (ADR 0016).

Covered: the module that the entry point names, the one that defines the function, and what they import, at any depth and also
inside functions, of the same top-level package or of the same folder. Read from import statements, not from what happens to be
loaded: so preflight and every stage, here and in a cluster, come to the same.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

#: Rules of our own are versioned like the stages that call them, by the stage's format.
_OURS = "rlhf_trainer"
#: Where packages are installed side by side, this one too: neighbours there are no part of a rule.
_INSTALLED = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_INSTALLED.add(Path(__file__).parents[2])
_INSTALLED_NAMES = {"site-packages", "dist-packages"}


def code_revision(module: str, function: Callable[..., Any]) -> str | None:
    """First 40 hex digits of the SHA-256 over names and contents of its modules; None for a rule of ours.

    `module` is imported, and `function` is what the entry point names in it. Raises OSError where a file cannot be read.
    """
    if _top(module) == _OURS:
        return None
    found = _covered(module)
    defined_in = _defining_module(function)
    if defined_in is not None and defined_in not in found:
        found |= _covered(defined_in)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(found[name]).digest())
    return digest.hexdigest()[:40]


def _covered(root: str) -> dict[str, bytes]:
    """The contents of the modules that scoring with this one may run, by name."""
    place = _Place(_top(root))
    found: dict[str, bytes] = {}
    waiting = _with_parents(root)
    while waiting:
        name = waiting.pop()
        if name in found or not place.has(_top(name)):
            continue
        spec = _spec_of(name)
        if spec is None:
            # What `from a import b` names need not be a module.
            continue
        found[name] = _content(spec)
        for imported in _imports(name, spec, found[name]):
            waiting += _with_parents(imported)
    return found


class _Place:
    """A top-level module or package and, where it does not lie among installed ones, what lies beside it."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._folders = {folder for folder in _folders_of(top) if not _is_installed(folder)}

    def has(self, top: str) -> bool:
        return top == self._top or bool(self._folders & _folders_of(top))


def _spec_of(name: str) -> ModuleSpec | None:
    """Without importing anything: a finder of an editable installation knows what is loaded, the path the rest."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded  # type: ignore[no-any-return]
    parent, _, _ = name.rpartition(".")
    if not parent:
        return PathFinder.find_spec(name)
    above = _spec_of(parent)
    inside = None if above is None else above.submodule_search_locations
    return None if inside is None else PathFinder.find_spec(name, list(inside))


def _content(spec: ModuleSpec) -> bytes:
    """Source, or the file's bytes of what has none; nothing of a folder without `__init__.py` or a built-in module."""
    if not spec.has_location or spec.origin is None:
        return b""
    try:
        return Path(spec.origin).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        # Inside an archive.
        read = getattr(spec.loader, "get_data", None)
        if read is None:
            raise
        return bytes(read(spec.origin))


def _imports(name: str, spec: ModuleSpec, content: bytes) -> Iterator[str]:
    """Absolute names that its import statements may mean."""
    if spec.origin is None or not spec.origin.endswith(tuple(SOURCE_SUFFIXES)):
        return
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        # Whoever imports it will hear of it.
        return
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (base := _base_of(node, package)):
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _base_of(node: ast.ImportFrom, package: str) -> str | None:
    """What `from base import …` names, without dots at its beginning; None where they lead out of the package."""
    if not node.level:
        return node.module
    above = package.split(".")
    above = above[: len(above) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])]) if package and above else None


def _defining_module(function: Callable[..., Any]) -> str | None:
    """Where an entry point only passes on what another package defines."""
    inner = inspect.unwrap(function)
    module = inner.__module__ if inspect.isfunction(inner) else None
    known = module is None or _top(module) == _OURS or _top(module) in sys.stdlib_module_names
    return None if known else module


def _folders_of(top: str) -> set[Path]:
    """The folders in which a top-level module or package lies: one, or several of a namespace package."""
    spec = _spec_of(top)
    if spec is None:
        return set()
    if spec.submodule_search_locations is not None:
        return {Path(place).parent for place in spec.submodule_search_locations}
    return {Path(spec.origin).parent} if spec.has_location and spec.origin is not None else set()


def _is_installed(folder: Path) -> bool:
    return folder in _INSTALLED or folder.name in _INSTALLED_NAMES


def _top(name: str) -> str:
    return name.partition(".")[0]


def _with_parents(name: str) -> list[str]:
    """`a.b.c` runs `a` and `a.b` first."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
