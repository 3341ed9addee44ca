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
from contextlib import contextmanager
from pathlib import Path

from support.binaries import cache
from support.documents import ROOT

SUITE = "bookworm"
#: What every later step needs of a Debian; the rest is the Dockerfile's.
_INCLUDED = ("ca-certificates",)
#: What the build needs of this machine, by Debian's names.
PROGRAMS = {"buildah": "buildah", "debootstrap": "debootstrap"}
NAME = "localhost/rlhf-operator"
ARGUMENTS = {"LOCK": "locks/cpu.lock", "COMPILER": "", "TORCHDYNAMO_DISABLE": "1"}
#: What the layer of dependencies is made of.
_OF_DEPENDENCIES = ("Dockerfile", ARGUMENTS["LOCK"], "tools/image")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
#: Layers, their sources and what comes out, at the worst moment of a build.
DISK_GB = 22


class ImageError(Exception):
    """What could not be built, and the last words of whoever tried."""


def folder() -> Path:
    return cache() / "image"


def build() -> str:
    """The image of this checkout, as `name:tag`. Minutes the first time, seconds when only the project has changed."""
    _check_machine()
    with _locked():
        tag = f"{NAME}:{_key()}"
        if not _has(tag):
            _clean()
            _say("building the image; about 4 minutes where its lock has changed, else seconds")
            begun = time.monotonic()
            _bud(_base(), tag)
            _say(f"the image was built in {time.monotonic() - begun:.0f} s")
            _prune(keep=tag)
        return tag


def save(tag: str, file: Path | str) -> None:
    """A docker archive of all layers. `file` may be a pipe."""
    with _locked(shared=True):
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


def layers(tag: str) -> list[tuple[str, int]]:
    """The instruction that made each layer, and its bytes; the base first."""
    inspected = json.loads(_buildah("inspect", "--type", "image", tag))
    digests = inspected["OCIv1"]["rootfs"]["diff_ids"]
    stored = json.loads((folder() / "storage" / "root" / "overlay-layers" / "layers.json").read_text())
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in stored if "diff-digest" in layer}
    made_by = [step["created_by"] for step in inspected["OCIv1"]["history"] if not step.get("empty_layer")]
    return [(step, sizes[digest]) for step, digest in zip(made_by, digests, strict=True)]


def remove() -> None:
    with _locked():
        if (folder() / "storage").exists():
            _buildah("rm", "--all")
            _buildah("rmi", "--all", "--force")
        shutil.rmtree(folder() / "storage", ignore_errors=True)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise ImageError("The image is built as root: its base is a Debian with users and devices of its own.")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise ImageError(f"The image is built with {', '.join(missing)}. Debian, Ubuntu: sudo apt-get install {' '.join(missing)}")
    free = shutil.disk_usage(cache()).free / 1e9
    if free < DISK_GB and not (folder() / "storage").exists():
        raise ImageError(
            f"{cache()} has {free:.0f} GB free, and building the image takes {DISK_GB} GB. Free some, or set RLHF_CACHE."
        )


def _base() -> str:
    """A small Debian, from the mirror that this machine has its own packages from."""
    key = hashlib.sha256(repr((SUITE, _INCLUDED)).encode()).hexdigest()[:12]
    tag = f"{NAME}-base:{key}"
    if _has(tag):
        return tag
    _say("making the base; about a minute")
    with tempfile.TemporaryDirectory(dir=folder()) as root:
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_INCLUDED)}", SUITE, f"{root}/root", _mirror())
        shutil.rmtree(f"{root}/root/var/cache/apt", ignore_errors=True)
        shutil.rmtree(f"{root}/root/var/lib/apt/lists", ignore_errors=True)
        (Path(root) / "Dockerfile").write_text('FROM scratch\nADD root /\nCMD ["/bin/sh"]\n')
        _buildah("bud", "--quiet", "--isolation", "chroot", "--tag", tag, root)
    return tag


def _mirror() -> str:
    """Of the main archive, without the name of a host in this file."""
    said = _run("apt-get", "indextargets", "--format", "$(COMPONENT) $(SUITE) $(REPO_URI)", "Created-By: Packages")
    found = [line.split()[-1] for line in said.splitlines() if "security" not in line]
    if not found:
        raise ImageError("apt names no archive of packages. Run apt-get update, and see that /etc/apt/sources.list.d names one.")
    return found[0]


def _bud(base: str, tag: str) -> None:
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
        str(ROOT),
    )


def _key() -> str:
    """Of everything that goes into it."""
    return _digest(
        [*_OF_DEPENDENCIES, ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "crds", "operator", "trainer", "cli"]
    )


def _digest(names: Sequence[str]) -> str:
    found = hashlib.sha256(repr((SUITE, _INCLUDED, ARGUMENTS)).encode())
    for name in names:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        for file in files:
            if "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:12]


@contextmanager
def _container(tag: str) -> Iterator[str]:
    with _locked(shared=True):
        name = _buildah("from", "--pull-never", tag).strip()
        try:
            yield name
        finally:
            _buildah("rm", name)


def _clean() -> None:
    """Before a build. A container is of a build that was killed, and may weigh 15 GB: who uses one holds the lock.

    Before other dependencies are installed all images go, for their layer has no name of its own: of 7 GB one copy is enough.
    """
    _buildah("rm", "--all")
    stamp, now = folder() / "dependencies", _digest(_OF_DEPENDENCIES)
    if stamp.exists() and stamp.read_text() != now:
        _buildah("rmi", "--all", "--force")
    stamp.write_text(now)


def _prune(keep: str) -> None:
    """Former images of this name; layers that later builds begin from stay."""
    for name in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        if name.startswith(f"{NAME}:") and name != keep:
            _buildah("rmi", name)


def _has(tag: str) -> bool:
    return subprocess.run(_command("images", "--quiet", tag), env=_environment(), capture_output=True, check=False).returncode == 0


def _buildah(*words: str) -> str:
    return _run(*_command(*words))


def _command(*words: str) -> list[str]:
    storage = folder() / "storage"
    return ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "overlay", *words]


def _run(*command: str) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ImageError(f"`{' '.join(command[:1])} …` ended with exit code {done.returncode}:\n{last}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Files that are made while building are for the image, not for the machine: below the cache, where there is room."""
    folder().mkdir(parents=True, exist_ok=True)
    return {**os.environ, "TMPDIR": str(folder()), "LC_ALL": "C"}


@contextmanager
def _locked(*, shared: bool = False) -> Iterator[None]:
    """Shared: the image is only used, and stays meanwhile."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
