"""What `claude-jobs doctor` looks at, a function for each thing, and what each of them found."""
