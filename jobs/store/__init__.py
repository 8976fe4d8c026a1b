"""Stores of the trees: one SQLite file, or memory."""
