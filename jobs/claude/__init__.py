"""Interface to Claude Code: its binary, command line, output stream, outcomes, usage, accounts and rate limits."""
