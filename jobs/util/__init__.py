"""Small tools that know nothing of jobs: locks by key, retrying, text and JSON values."""
