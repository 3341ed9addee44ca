"""What changes in the cluster: watches and lists, the index that they fill, the queue of runs to look at."""
