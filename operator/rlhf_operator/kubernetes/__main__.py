"""`python -m rlhf_operator.kubernetes`: run the operator until SIGTERM or SIGINT.

It takes no arguments; its settings are the variables RLHF_OPERATOR_* (charts/rlhf-operator/README.md has what they mean):
NAMESPACES, IMAGE, IMAGE_PULL_POLICY, SERVICE_ACCOUNTS, STAGE_USER, WORKERS, RESYNC_SECONDS, WATCH_SECONDS, WATCH_SILENCE_SECONDS,
LEASE_NAMESPACE, LEASE_NAME, LEASE_SECONDS, IDENTITY, HTTP_HOST, HTTP_PORT, LOG_FORMAT, LOG_LEVEL. Outside a cluster KUBECONFIG says
which one, and RLHF_OPERATOR_LEASE_NAMESPACE is required.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import uuid

from rlhf_operator.kubernetes.api.client import OWN_NAMESPACE, Cluster
from rlhf_operator.kubernetes.api.errors import ClusterError
from rlhf_operator.kubernetes.telemetry.logs import configure_logging

from .app import Operator
from .settings import SettingsError, settings_from

_DEEP = 60_000
#: Of each thread; only what is touched of it takes memory.
_STACK_BYTES = 64 << 20


def main() -> int:
    """0: told to stop, and stopped. 2: it cannot start as it is set up."""
    arguments = argparse.ArgumentParser(
        prog="python -m rlhf_operator.kubernetes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.parse_args()
    # The API server takes objects that are 10,000 deep, where a field is open. One such must not keep all others from being read.
    sys.setrecursionlimit(_DEEP)
    threading.stack_size(_STACK_BYTES)
    # A pipe, for a handler may take no lock: it can run in the middle of anything.
    told, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(tell, b"."))
    try:
        namespace = OWN_NAMESPACE.read_text().strip() if OWN_NAMESPACE.exists() else None
        identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        settings = settings_from(os.environ, default_identity=identity, default_namespace=namespace)
        configure_logging(settings.log_format, settings.log_level)
        operator = Operator(settings, Cluster.connect)
    except (SettingsError, ClusterError, OSError) as error:
        print(f"The operator cannot start: {error}", file=sys.stderr)
        return 2
    operator.run(lambda: os.read(told, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
