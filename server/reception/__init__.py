"""The engine's side of the socket: who comes, who is let in, and what is answered before anything of MCP."""
