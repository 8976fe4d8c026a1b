"""Maintenance of a state directory: recovery after a start, snapshots, pruning, backup."""
