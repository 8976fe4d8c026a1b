"""The engine process and every way to reach it: MCP, command line, pump. What a job may do is decided in `jobs`."""

__version__ = "0.1.0"
"""Kept as a literal: reading the installed metadata would take the pump longer than all of its other imports."""
