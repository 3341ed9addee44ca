"""What can go wrong with the test cluster.

ClusterError
├── StartError      a component did not start, or did not get ready; has the last lines of its log
├── KubectlError    kubectl answered with an error
└── NotHere         what is asked for, a cluster that KUBECONFIG names does not have
"""

from __future__ import annotations


class ClusterError(Exception):
    """Says what happened, to which cluster or component, and what to do."""


class StartError(ClusterError):
    pass


class KubectlError(ClusterError):
    """`stderr` is what kubectl said."""

    def __init__(self, arguments: tuple[str, ...], stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}\n{stderr.strip()}")
        self.stderr = stderr


class NotHere(ClusterError):  # noqa: N818 - it is no fault
    pass
