"""The checks of `claude-jobs doctor`, a function for each, and their findings."""
