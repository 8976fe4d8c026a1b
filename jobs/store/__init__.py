"""Where the rows of the trees are kept: one SQLite file, or memory."""
