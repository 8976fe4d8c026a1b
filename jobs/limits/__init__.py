"""What a job may cost, take and say: budgets and their ledger, the API's limits, the watchdog."""
