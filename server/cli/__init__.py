"""The `claude-jobs` command line: its commands, and their output for a person or as JSON."""
