"""What a job is, how it is kept, and how it runs."""
