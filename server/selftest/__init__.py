"""The kill test: kills the engine at random moments under load and counts what was lost, for `doctor --selftest`."""
