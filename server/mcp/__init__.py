"""What a client of MCP finds: tools and their replies, tasks, resources, prompts, permission forms."""
