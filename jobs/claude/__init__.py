"""One attempt at a job: how its `claude` is launched, followed, classified and ended."""
