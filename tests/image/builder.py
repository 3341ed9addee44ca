"""The image for CPUs, really built: a base by debootstrap, the Dockerfile by buildah, all of it below the cache folder.

Kept is one copy, in the storage of buildah, with the layers that the next build begins from: that of the dependencies is made again
only when the lock, the tools of the build or the base change. The project's own layer takes seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from support import bounded
from support.binaries import cache
from support.bounded import SYSTEM_PATH
from support.documents import ROOT

SUITE = "bookworm"
#: What every later step needs of a Debian; the rest is the Dockerfile's.
_INCLUDED = ("ca-certificates",)
#: What the build needs of this machine, by Debian's names.
PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap"}
NAME = "localhost/rlhf-operator"
ARGUMENTS = {"LOCK": "locks/cpu.lock", "COMPILER": "", "TORCHDYNAMO_DISABLE": "1"}
#: What the layer of dependencies is made of, and everything that goes into the image: of a checkout.
_OF_DEPENDENCIES = ("Dockerfile", ARGUMENTS["LOCK"], "locks/build.lock", "tools/image")
CONTEXT = (*_OF_DEPENDENCIES, ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "crds", "operator", "trainer", "cli")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
#: Layers, their sources and what comes out, at the worst moment of a build.
DISK_GB = 22
#: What it takes on two cores: the first time, and where only the project has changed.
MINUTES, MINUTES_OF_PROJECT = 6, 0.5
#: For a machine and a network that are far slower: of the base, of the rest, and of whatever else buildah is told.
_BASE_LIMIT, _LIMIT, _STEP_LIMIT = 20, 60, 15
#: Whose packages the base is made of; by default those of the archive that this machine has its own from.
MIRROR = "RLHF_DEBIAN_MIRROR"


class ImageError(Exception):
    """What could not be built, and the last words of whoever tried."""


@dataclass(frozen=True)
class Layer:
    made_by: str
    """The instruction."""
    digest: str
    size: int
    """Bytes."""


def folder() -> Path:
    return cache() / "image"


@contextmanager
def built(checkout: Path = ROOT) -> Iterator[str]:
    """The image of a checkout, as `name:tag`, which nobody removes meanwhile.

    Minutes the first time, seconds when only the project has changed. Raises ImageError.
    """
    _check_machine()
    with ExitStack() as use:
        with _building():
            tag = f"{NAME}:{_digest(checkout, CONTEXT)}"
            if not _has(tag):
                _build(checkout, tag)
            use.enter_context(_in_use(tag))
        yield tag


@dataclass(frozen=True)
class Work:
    """What there is to build."""

    minutes: float
    gigabytes: float


def to_build(checkout: Path = ROOT) -> Work | None:
    """None where `built` has nothing to do. Raises ImageError where it could not begin."""
    _check_machine()
    if _has(f"{NAME}:{_digest(checkout, CONTEXT)}"):
        return None
    stamp = folder() / "dependencies"
    # One who was killed may have left the stamp alone; an image has that layer.
    layered = stamp.exists() and stamp.read_text() == _digest(checkout, _OF_DEPENDENCIES) and _images()
    return Work(MINUTES_OF_PROJECT, 1) if layered else Work(MINUTES, DISK_GB)


def save(tag: str, file: Path | str) -> None:
    """A docker archive of all layers. `file` may be a pipe."""
    _buildah("push", "--quiet", tag, f"docker-archive:{file}:{tag}")


@contextmanager
def mounted(tag: str) -> Iterator[Path]:
    """Its file system, to look at."""
    with _container(tag) as container:
        yield Path(_buildah("mount", container).strip())


def run(tag: str, *command: str) -> str:
    """What a command prints that runs in the image as the image's user."""
    with _container(tag) as container:
        return _buildah("run", "--isolation", "chroot", container, "--", *command)


def layers(tag: str) -> list[Layer]:
    """The base first."""
    inspected = json.loads(_buildah("inspect", "--type", "image", tag))
    digests = inspected["OCIv1"]["rootfs"]["diff_ids"]
    stored = json.loads((folder() / "storage" / "root" / "overlay-layers" / "layers.json").read_text())
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in stored if "diff-digest" in layer}
    made_by = [step["created_by"] for step in inspected["OCIv1"]["history"] if not step.get("empty_layer")]
    return [Layer(step, digest, sizes[digest]) for step, digest in zip(made_by, digests, strict=True)]


def remove() -> None:
    """What no process is using now."""
    with _building():
        if _images_in_use():
            raise ImageError(f"The image in {folder()} is in use: tests run, or it is being saved. Wait until they have ended.")
        if (folder() / "storage").exists():
            _buildah("rm", "--all")
            _buildah("rmi", "--all", "--force")
        shutil.rmtree(folder() / "storage", ignore_errors=True)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise ImageError("The image is built as root: its base is a Debian with users and devices of its own.")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program, path=SYSTEM_PATH) is None]
    if missing:
        raise ImageError(f"The image is built with {', '.join(missing)}. Debian, Ubuntu: sudo apt-get install {' '.join(missing)}")


def _build(checkout: Path, tag: str) -> None:
    _clean(_digest(checkout, _OF_DEPENDENCIES))
    _say("building the image; about 4 minutes where its lock has changed, else seconds")
    begun = time.monotonic()
    _bud(checkout, _base(), tag)
    if tag != f"{NAME}:{_digest(checkout, CONTEXT)}":
        _buildah("rmi", tag)
        raise ImageError(f"{checkout} was changed while the image was built from it. Build it again.")
    _say(f"the image was built in {time.monotonic() - begun:.0f} s")
    for name in _images():
        if name != tag and not _is_in_use(name):
            _buildah("rmi", name)


def _base() -> str:
    """A small Debian, from the mirror that this machine has its own packages from."""
    key = hashlib.sha256(repr((SUITE, _INCLUDED)).encode()).hexdigest()[:12]
    tag = f"{NAME}-base:{key}"
    if _has(tag):
        return tag
    _say("making the base; about a minute")
    with tempfile.TemporaryDirectory(dir=folder()) as root:
        # In mounts of its own: what it mounts there goes with it, however it ends, and nobody who cleans up walks into that.
        own = ("unshare", "--mount", "--propagation", "private")
        made = ("debootstrap", "--variant=minbase", f"--include={','.join(_INCLUDED)}", SUITE, f"{root}/root", _mirror())
        _run(*own, *made, minutes=_BASE_LIMIT)
        shutil.rmtree(f"{root}/root/var/cache/apt", ignore_errors=True)
        shutil.rmtree(f"{root}/root/var/lib/apt/lists", ignore_errors=True)
        (Path(root) / "Dockerfile").write_text('FROM scratch\nADD root /\nCMD ["/bin/sh"]\n')
        _buildah("bud", "--quiet", "--isolation", "chroot", "--tag", tag, root)
    return tag


def _mirror() -> str:
    """Of Debian's main archive, without the name of a host in this file."""
    if given := os.environ.get(MIRROR):
        return given
    form = "$(ORIGIN) $(COMPONENT) $(SUITE) $(REPO_URI)"
    said = (
        _run("apt-get", "indextargets", "--format", form, "Created-By: Packages")
        if shutil.which("apt-get", path=SYSTEM_PATH)
        else ""
    )
    lines = [line.split() for line in said.splitlines()]
    found = [line[-1] for line in lines if line[:2] == ["Debian", "main"] and "security" not in line[-2]]
    if not found:
        raise ImageError(f"This machine has no archive of Debian's packages. Set {MIRROR} to the URL of one.")
    return found[0]


def _bud(checkout: Path, base: str, tag: str) -> None:
    arguments = [word for name, value in {"BASE": base, **ARGUMENTS}.items() for word in ("--build-arg", f"{name}={value}")]
    certificates = ["--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.exists() else []
    _buildah(
        "bud",
        "--isolation",
        "chroot",
        "--layers",
        "--pull-never",
        *certificates,
        *arguments,
        "--tag",
        tag,
        str(checkout),
        minutes=_LIMIT,
    )


def _digest(checkout: Path, names: Sequence[str]) -> str:
    """Of these files and folders, and of what else the build goes by."""
    found = hashlib.sha256(repr((SUITE, _INCLUDED, ARGUMENTS)).encode())
    for name in names:
        path = checkout / name
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(checkout)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def _clean(dependencies: str) -> None:
    """Before a build, while no image is in use. Containers and files are of builds that were killed, and may weigh 15 GB.

    Before other dependencies are installed all images go, for their layer has no name of its own: of 7 GB one copy is enough.
    """
    if _images_in_use():
        return
    _buildah("rm", "--all")
    for left in folder().glob("tmp*"):
        shutil.rmtree(left, ignore_errors=True)
    stamp = folder() / "dependencies"
    if not stamp.exists() or stamp.read_text() != dependencies:
        _buildah("rmi", "--all", "--force")
        free = shutil.disk_usage(folder()).free / 1e9
        if free < DISK_GB:
            raise ImageError(
                f"{folder()} has {free:.0f} GB free, and building the image takes {DISK_GB} GB. Free some, or set RLHF_CACHE."
            )
    stamp.write_text(dependencies)


def _images() -> list[str]:
    """But not the base, and not the layers that later builds begin from."""
    names = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
    return [name for name in names if name.startswith(f"{NAME}:")]


@contextmanager
def _container(tag: str) -> Iterator[str]:
    name = _buildah("from", "--pull-never", tag).strip()
    try:
        yield name
    finally:
        _buildah("rm", name)


def _has(tag: str) -> bool:
    return subprocess.run(_command("images", "--quiet", tag), env=_environment(), capture_output=True, check=False).returncode == 0


def _buildah(*words: str, minutes: float = _STEP_LIMIT) -> str:
    return _run(*_command(*words), minutes=minutes)


def _command(*words: str) -> list[str]:
    storage = folder() / "storage"
    return ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "overlay", *words]


def _run(*command: str, minutes: float = _STEP_LIMIT) -> str:
    """What it prints. It ends with us: it must not work on while somebody else has our lock."""
    name = next((word for word in command if word in PROGRAMS), command[0])
    try:
        done = bounded.run(command, seconds=60 * minutes, environment=_environment())
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"`{name} …`, of the image, was not done after {minutes:g} min, and was ended. Look whether this machine reaches "
            f"the archive of Debian's packages and the index of Python's, and what else it is busy with; then do the same again."
        ) from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ImageError(f"`{name} …` ended with exit code {done.returncode}:\n{last}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Files that are made while building are for the image, not for the machine: below the cache, where there is room."""
    folder().mkdir(parents=True, exist_ok=True)
    return {**os.environ, "PATH": SYSTEM_PATH, "TMPDIR": str(folder()), "LC_ALL": "C"}


@contextmanager
def _building() -> Iterator[None]:
    """One at a time; an image gets into use, or is removed, only under this."""
    with _open(".lock") as lock:
        if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _say("another build is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _in_use(tag: str) -> Iterator[None]:
    with _open(_use_file(tag)) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _is_in_use(tag: str) -> bool:
    with _open(_use_file(tag)) as lock:
        return not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _images_in_use() -> list[str]:
    return [name for name in _images() if _is_in_use(name)]


def _use_file(tag: str) -> str:
    return f".use-{tag.rpartition(':')[2]}"


def _open(name: str) -> IO[str]:
    folder().mkdir(parents=True, exist_ok=True)
    return (folder() / name).open("w")


def _take(lock: IO[str], how: int) -> bool:
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        return False
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
