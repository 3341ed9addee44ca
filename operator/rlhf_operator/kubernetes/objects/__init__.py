"""Kubernetes objects as data: what is made of a stage, what is read of Jobs and pods. Nothing here talks to a server."""
