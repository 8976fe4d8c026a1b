"""The engine process: built from its parts, reached through a socket, exits when it is idle."""
