"""The engine: built from its parts, reached through a socket, left when nobody needs it."""
