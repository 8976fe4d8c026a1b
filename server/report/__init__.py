"""What is shared of a tree of jobs: its record, a page without scripts, a trace."""
