"""The terminal view: `claude-jobs top`. Textual is imported by nothing else."""
