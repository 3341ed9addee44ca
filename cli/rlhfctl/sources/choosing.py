"""From what the command line says of where runs are to the source of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhfctl.errors import UsageProblem

from .place import Place, local_folder

if TYPE_CHECKING:
    from rlhfctl.sources.cluster.source import ClusterSource

    from .source import Source


def source_of(place: Place, say: Callable[[str], None]) -> Source:
    """The state folder with --local or --state, else the cluster as kubectl finds it. `say` takes what is to be told
    beside the data.

    Raises:
        UsageProblem: options of both.
        NoConnection: no cluster is configured.
    """
    if not place.local and place.state is None:
        return cluster_of(place, say)
    given = {"-n": place.namespace, "--context": place.context, "--kubeconfig": place.kubeconfig, "-A": place.all_namespaces}
    if options := [name for name, value in given.items() if value]:
        raise UsageProblem(
            f"{', '.join(options)} selects a cluster, --local and --state this machine",
            hints=("leave one of them out",),
        )
    from rlhf_operator.local import LocalState
    from rlhfctl.sources.local.source import LocalSource

    return LocalSource(LocalState(local_folder(place.state)))


def cluster_of(place: Place, say: Callable[[str], None]) -> ClusterSource:
    """The cluster that the options, $KUBECONFIG, ~/.kube/config or the pod we run in select."""
    from rlhfctl.sources.cluster.source import connect

    return connect(place, say)
