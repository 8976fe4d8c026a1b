"""How a client reaches the engine: where it is, how it is started, what is carried to it and over its end."""
