"""Where runs are: a state folder or a cluster, behind one protocol. Nothing here prints."""
