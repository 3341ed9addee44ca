"""The Kubernetes backend: runs are custom resources, attempts are Jobs. Only this package imports kopf or a cluster client."""
