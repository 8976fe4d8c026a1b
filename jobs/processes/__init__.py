"""Processes and files of attempts: start, supervision, adoption and kill."""
