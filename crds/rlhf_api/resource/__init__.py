"""The custom resource: its spec, a file a part, and its status."""
