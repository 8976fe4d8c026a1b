"""Prompts of jobs: the briefing, the results of siblings, and the protocol for subtasks."""
