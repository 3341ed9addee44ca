"""Process 1 of a node's machine (machine.py): makes the machine, says so, and lives as long as it does.

    python machine_init.py FOLDER

FOLDER holds `lib` and `log`, which are /var/lib and /var/log in there; `ready` appears in it. Standard library only.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

#: A kubelet sets these for the whole kernel, unless they say so already: it is shown what it wants to see.
_WANTED_BY_KUBELET = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(folder: Path) -> None:
    # Ignored, the processes that it inherits (containerd's shims) leave no zombies; the commands below run before that.
    _private_folders(folder)
    _network()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    (folder / "ready").touch()
    while True:
        signal.pause()


def _private_folders(folder: Path) -> None:
    """The places where a node writes, whatever it is told: sockets, images, volumes, logs, leases of addresses."""
    for name in ("lib", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", folder / name, f"/var/{name}")
    # The machine's own /run may hold a symbolic link's target (resolv.conf), but nothing that a node reads.
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for number, (name, value) in enumerate(_WANTED_BY_KUBELET.items()):
        shown = Path("/run") / f"kernel-{number}"
        shown.write_text(f"{value}\n")
        _run("mount", "--bind", shown, f"/proc/sys/{name}")


def _network() -> None:
    _run("ip", "link", "set", "lo", "up")
    # What pods reach by way of a service, another pod among it, comes back by that way. Settings of this network alone.
    for name in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        setting = Path("/proc/sys/net", name)
        # Where the kernel has no filter for bridges loaded (br_netfilter), only headless services lead from pod to pod.
        if setting.exists():
            setting.write_text("1\n")


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
