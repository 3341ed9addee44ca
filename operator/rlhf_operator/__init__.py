"""The operator: a pure core that decides, and the backends that act on Kubernetes or on this machine."""
