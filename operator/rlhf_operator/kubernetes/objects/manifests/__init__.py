"""Actions as Kubernetes objects. Pure: an object is a function of its action, its run and the installation."""

from .config_map import config_map
from .job import job
from .network_policy import network_policy
from .service import service

__all__ = ["config_map", "job", "network_policy", "service"]
