"""What keeps a state directory in order: recovery after a start, rescue, snapshots, retention."""
