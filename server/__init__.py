"""The faces that clients, children, people and browsers see; nothing here decides what a job may do."""

__version__ = "0.1.0"
"""Kept as a literal: reading the installed metadata would cost the front door more than all of its other imports."""
