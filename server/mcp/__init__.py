"""The MCP interface: tools and their replies, tasks, resources, prompts, permission forms."""
