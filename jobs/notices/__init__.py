"""Notices for a person: told by commands, web hooks and on the desktop, at least once, without delaying a job."""
