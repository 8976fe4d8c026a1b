"""Tests of what a job may do, and of what keeps it to that."""
