"""What a job may do and whom it may see: modes, tools, directories, tokens, permission requests."""
