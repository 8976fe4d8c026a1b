"""Limits of jobs: budgets and their ledger, the throttle for the API's limits, and the watchdog."""
