"""What keeps a state directory in order: recovery after a start, snapshots, pruning, backup."""
