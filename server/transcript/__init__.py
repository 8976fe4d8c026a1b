"""Reads what a job's `claude` wrote, as a conversation."""
