"""Names of runs for the shell's completion. It never says anything, and never lets a person wait for long."""

from __future__ import annotations

from rlhfctl.sources.place import Place, local_folder

#: A shell that waits longer for a completion feels broken.
CLUSTER_SECONDS = 2.0


def run_names(place: Place) -> list[str]:
    """Of the state folder with --local or --state, else of the cluster; none where that cannot be had in time."""
    if place.local or place.state is not None:
        # As LocalState.names, without the half second of its imports.
        return sorted(path.parent.name for path in local_folder(place.state).glob("runs/*/run.yaml"))
    from rlhfctl.sources.cluster.source import names_within

    return names_within(place, CLUSTER_SECONDS)
