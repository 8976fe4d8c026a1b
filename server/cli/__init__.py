"""The `claude-jobs` command: how it is called, and how it speaks to a person."""
